"""Compares clocks. People see times of several machines side by side, and S3 refuses requests of another time."""

from email.utils import parsedate_to_datetime

from tlim_admin.doctor.findings import Finding, doubtful, fine, wrong

MOST_S = 2.0
"""As the services do (tlim_runtime.clocks). Clocks with NTP differ by milliseconds."""


def judge_clock(name: str, theirs: float, before: float, after: float, exact_s: float = 0.0) -> Finding:
    """Judge a server's clock by its answer, asked for at `before` and here at `after`; all are seconds since the epoch.

    `exact_s`: the answer is cut down to so many seconds.
    """
    ahead, behind = theirs - after, before - (theirs + exact_s)
    off = max(ahead, behind, 0.0)
    if off <= MOST_S:
        return fine(f"{name} clock", f"differs by {off:.1f} s at most from ours")
    which = "ahead of" if ahead > behind else "behind"
    advice = "let NTP set the clocks of all machines"
    return wrong(f"{name} clock", f"{off:.0f} s {which} ours", advice)


def judge_date(name: str, date: str | None, before: float, after: float) -> Finding:
    """Judge a server's clock by the header `Date` of its answer, which tells whole seconds; None: it has none."""
    if date is None:
        return doubtful(f"{name} clock", "not compared, as its answer has no Date", "look at the clock of its machine")
    return judge_clock(name, parsedate_to_datetime(date).timestamp(), before, after, exact_s=1.0)

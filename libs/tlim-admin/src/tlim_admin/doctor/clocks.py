"""Compares clocks. People see times of several machines side by side, and S3 refuses requests of another time."""

from tlim_admin.doctor.findings import Finding, fine, wrong

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

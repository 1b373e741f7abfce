"""The text about a run: for the terminal, and for docs/torture.md."""

import subprocess
import time
from collections import Counter
from pathlib import Path

from tests.torture.book import Book
from tests.torture.checker import Checker
from tests.torture.faults import Done

HEADING = "## The last long run"


def summary(seed: int, xmpp: str, done: list[Done], checker: Checker) -> list[tuple[str, str]]:
    """Return what was done and found, as names and values."""
    book, again = checker.book, checker.repetitions()
    kinds = Counter(fault.how.value for one in done for fault in one.step.faults)
    slowest = max(done, key=lambda one: one.took, default=None)
    return [
        ("date", time.strftime("%Y-%m-%d", time.gmtime())),
        ("commit", _commit()),
        ("seed", f"{seed}, {xmpp}"),
        ("faults", f"{kinds.total():,}: {', '.join(f'{count} {how}' for how, count in kinds.most_common())}"),
        ("survived", f"{len(done):,} steps; the slowest took {slowest.took:.1f} s" if slowest else "-"),
        ("people", f"{len({heard.user_id for heard in book.devices})}, with {len(book.devices):,} logins"),
        ("messages", f"{len(book.sent):,} sent, {_acknowledged(book):,} acknowledged"),
        ("changes of groups", f"{len(book.renames):,} confirmed"),
        ("over XMPP", f"{again['first']:,} first arrivals"),
        ("repetitions", f"{again['same device']:,} to the same device, {again['other device']:,} to another"),
        ("receipts over the limit", f"{checker.receipts_left_out:,}"),
        ("wrong", f"{len(checker.findings):,}"),
    ]


def write_down(page: Path, rows: list[tuple[str, str]]) -> None:
    """Replace the last section of a page by a table of these rows."""
    before, _, _ = page.read_text().partition(HEADING)
    lines = [f"| {name} | {value} |" for name, value in rows]
    page.write_text("\n".join([before.rstrip(), "", HEADING, "", "| what | value |", "|---|---|", *lines, ""]))


def _acknowledged(book: Book) -> int:
    return sum(bool(one.seqs) for one in book.sent.values())


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - git is where the shell finds it
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() or "-"

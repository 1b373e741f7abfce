"""What all benches share: how much is measured, in which order, and how it is told."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Effort(NamedTuple):
    """How long each run lasts, and how often it is repeated."""

    seconds: float
    repeats: int


class Figure(NamedTuple):
    """The median of several runs, and their spread."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Figure":
        """Return the figure of at least one run."""
        runs = sorted(values)
        return cls(statistics.median(runs), runs[0], runs[-1])

    def told(self, digits: int = 0) -> str:
        """Return the cell of a table: the median, and the spread if there were several runs."""
        median, low, high = (f"{one:,.{digits}f}" for one in self)
        return median if low == high else f"{median} ({low} to {high})"


@dataclass(frozen=True)
class Section:
    """What a bench says: its heading, its text (Markdown) and its plot, if it has one."""

    heading: str
    text: str
    plot: "Bars | None" = None


@dataclass(frozen=True)
class Bars:
    """A plot of bars that lie on each other: `unit` of each label, one color for each name of a part."""

    unit: str
    parts: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, unit: str, figures: Mapping[str, Figure]) -> "Bars":
        """Return plain bars with their spread."""
        parts = {label: {"": figure.median} for label, figure in figures.items()}
        return cls(unit, parts, {label: (figure.low, figure.high) for label, figure in figures.items()})


def interleaved(repeats: int, runs: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run everything in turn, `repeats` times. Each round begins with another one: so none profits from its place."""
    names, found = list(runs), {name: list[T]() for name in runs}
    for number in range(repeats):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            found[name].append(runs[name]())
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    first = next(lines)
    return "\n".join((first, "|" + "---|" * len(head), *lines))


def percentile(values: Sequence[float], share: int) -> float:
    """Return a percentile, 1 to 99, of at least one value."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]


def ratio(one: float, other: float) -> float:
    """Return `one` divided by `other`; nan if nothing came of the other, as in a short run on a busy machine."""
    return one / other if other else math.nan


def prose(doc: str | None) -> str:
    """Return what a module says of itself, without its first line."""
    return (doc or "").partition("\n\n")[2].strip()

"""Shows on a terminal how far a command is. A log, a pipe and `--json` get none of it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Item = TypeVar("Item")


class Bar:
    """A bar that is told how far it is."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def at(self, done: int, total: int) -> None:
        """Show that so many of `total` are done."""
        self._progress.update(self._task, completed=done, total=total)


class Steps:
    """The steps of one command, each with a bar on stderr. The bars are removed at the end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show that something is at work, without saying how far it is."""
        task = self._progress.add_task(what, total=None)
        yield
        self._progress.update(task, total=1, completed=1)

    @contextmanager
    def bar(self, what: str) -> Iterator[Bar]:
        """Lend a bar whose length can change."""
        yield Bar(self._progress, self._progress.add_task(what, total=None))

    def each(self, what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
        """Give the items, and show how many of `total` were given."""
        return iter(self._progress.track(items, total=total, description=what))


@contextmanager
def steps() -> Iterator[Steps]:
    """Lend the steps of a command."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Steps(progress)

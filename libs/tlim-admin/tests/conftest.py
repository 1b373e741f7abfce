"""Steps of a command that are written down, so that a test sees what a person sees on a terminal."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from rich.progress import Progress
from tlim_admin.progress import Bar, Steps

Item = TypeVar("Item")


class RecordedSteps(Steps):
    """The names of the steps, in their order."""

    def __init__(self) -> None:
        super().__init__(Progress(disable=True))
        self.names: list[str] = []

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        self.names.append(what)
        with super().step(what):
            yield

    @contextmanager
    def bar(self, what: str) -> Iterator[Bar]:
        self.names.append(what)
        with super().bar(what) as bar:
            yield bar

    def each(self, what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
        self.names.append(what)
        return super().each(what, items, total)


@pytest.fixture
def recorded() -> RecordedSteps:
    return RecordedSteps()

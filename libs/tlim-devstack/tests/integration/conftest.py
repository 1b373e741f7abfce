"""One whole stack for the tests of a file."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from tlim_devstack.ports import Ports
from tlim_devstack.stack import Stack

Processes = Callable[[], list[psutil.Process]]
OfEach = Callable[[Callable[[psutil.Process], Any]], list[Any]]


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack in a new directory of /tmp: other users can pass through what is above it, unlike pytest's own.

    It runs ejabberd, or the XMPP server that a test file names.
    """
    with TemporaryDirectory() as directory:
        stack = Stack(Path(directory), Ports.random(), getattr(request, "param", "ejabberd"), demo_users=["alice"])
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


@pytest.fixture
def processes(stack: Stack) -> Processes:
    """Return a function that gives the stack's processes, the process runner first."""

    def running() -> list[psutil.Process]:
        runner = psutil.Process(int((stack.home / "supervisord.pid").read_text()))
        return [runner, *runner.children(recursive=True)]

    return running


@pytest.fixture
def of_each(processes: Processes) -> OfEach:
    """Return a function: question → the answers of all processes. One that ends meanwhile has none."""

    def answers(ask: Callable[[psutil.Process], Any]) -> list[Any]:
        found = []
        for process in processes():
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                found.append(ask(process))
        return found

    return answers

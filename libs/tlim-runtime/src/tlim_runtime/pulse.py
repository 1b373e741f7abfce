"""Whether background work gets on. Liveness asks it, so that a process that hangs is started anew.

Work hangs when it has neither got on nor waited for HUNG_S. It gets on when a server has answered or could not be
reached (`beat`), so an outage makes nothing hang. It waits while there is nothing to do, or while others must act first
(`waiting`), for as long as that takes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, ContextVar, copy_context

HUNG_S = 300.0
"""Every question to a server ends within a minute, also without an answer. The rest is for a machine that is too busy:
a start anew would make it busier."""


class Pulse:
    """When one piece of work last got on. It is judged from its first sign on: the first beat or the first wait."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._waits = 0  # the tasks that the work has begun can wait as well

    def begin(self) -> None:
        """Make this the pulse of the current task, and of the tasks that it begins."""
        self._at, self._waits = None, 0
        _current.set(self)

    def beat(self) -> None:
        """Note that the work has got on."""
        self._at = time.monotonic()

    @property
    def is_judged(self) -> bool:
        """Whether the work has ever given a sign."""
        return self._at is not None

    def stands_for(self) -> float:
        """Return for how many seconds the work has neither got on nor waited."""
        if self._at is None or self._waits:
            return 0.0
        return time.monotonic() - self._at

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait inside the block."""
        self._at = time.monotonic()
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            self.beat()


_current: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


def apart() -> Context:
    """Return a context for a task that the current work leaves to itself: its signs say nothing of this work."""
    context = copy_context()
    context.run(_current.set, None)
    return context


def beat(*, first: bool = False) -> None:
    """Note that the work has got on; does nothing outside of background work, or before its first sign.

    With `first` it is a sign by itself.
    """
    pulse = _current.get()
    if pulse is not None and (first or pulse.is_judged):
        pulse.beat()


@contextmanager
def waiting() -> Iterator[None]:
    """Wait inside the block for something to do, or for others; does nothing outside of background work."""
    pulse = _current.get()
    if pulse is None:
        yield
        return
    with pulse.waiting():
        yield


@asynccontextmanager
async def held(turn: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
    """Hold `turn` inside the block. Until it is free the work waits, for others who have a pulse of their own."""
    with waiting():
        await turn.acquire()
    try:
        yield
    finally:
        turn.release()

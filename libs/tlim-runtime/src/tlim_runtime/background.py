"""Everything that runs beside the requests of a process: the only module that makes tasks.

| what | with |
|---|---|
| runs as long as its owner | `Background` |
| is done again and again | `Repeated` |
| is begun and left to itself | `Tasks` |
| helps one function, and ends with it | `beside` |
| may lose a cancellation | `cancellable` |

A bare asyncio task fails in silence: nobody reads its exception. Here the exception is logged, and readiness is red
until the work runs again. Stopping is always the same: cancel, then wait for the end.

`stuck` says which work has ended without its owner, or hangs (pulse.py); liveness asks it. `failing` says which is done
again and again, and fails each time: nothing else may show that.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakSet

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import HUNG_S, Pulse, apart, beat, waiting

logger = get_logger(__name__)

RESTART_S = 1.0
"""The pause before dead work is begun again. Messages may wait for it, so it is short. Work that dies every time
causes no busy loop."""

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, None]]


class Background:
    """Runs `work` from start to stop. When the work dies, it is begun again after RESTART_S.

    With `died` it is not begun again: `died` is called with the reason, and the owner decides. Work that returns is
    over and is not begun again either.
    """

    def __init__(self, name: str, work: Work, *, died: Callable[[str], None] | None = None) -> None:
        self._name = name
        self._work = work
        self._died = died
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        self._pulse = Pulse()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=self._name)
        _started.add(self)

    async def stop(self) -> None:
        """Cancel the work and wait for its end; does nothing if it was never started."""
        _started.discard(self)
        if self._task is not None:
            await _cancel(self._task)
            self._task = None

    async def join(self) -> None:
        """Wait until the work returns. The owner must have told it to end."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self._task = None

    async def ping(self) -> None:
        """Raise Unavailable with the reason while the work should run and does not; for Health.add."""
        if self._reason:
            raise Unavailable(self._reason)

    @property
    def trouble(self) -> str | None:
        """Why only a new process helps: the work has ended, although nobody stopped it, or it hangs. None: all is well.

        Work of another event loop is in no trouble.
        """
        if self._task is None or self._task.get_loop() is not asyncio.get_running_loop():
            return None
        if self._task.done():
            return f"{self._name}: it has ended"
        stands_for = self._pulse.stands_for()
        return f"{self._name}: it hangs since {stands_for:.0f} s" if stands_for > HUNG_S else None

    async def _run(self) -> None:
        self._pulse.begin()
        await self._again_and_again()
        _started.discard(self)  # the work is over; its owner knows it

    async def _again_and_again(self) -> None:
        while reason := await self._reason_of_death():
            self._reason = f"{self._name}: {reason}"
            if self._died is not None:
                self._died(self._reason)
                return
            await asyncio.sleep(RESTART_S)
            self._reason = ""

    async def _reason_of_death(self) -> str:
        """Do the work. Return the reason of its death, or an empty string when the work returned."""
        try:
            await self._work()
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            # Nobody stopped us: the work awaited a future that somebody else has cancelled.
            logger.exception("background work was cancelled by itself", work=self._name)
            return "cancelled"
        except Exception as error:
            logger.exception("background work died", work=self._name)
            return f"{type(error).__name__}: {error}"
        return ""


_started: WeakSet[Background] = WeakSet()


def stuck() -> list[str]:
    """Return a sentence for each work of this event loop that has ended although nobody stopped it, or that hangs."""
    return sorted(trouble for one in _started if (trouble := one.trouble) is not None)


class Repeated:
    """Does `work` at start, then `every` seconds after each round, and when woken. A failure costs one round.

    Work that returns True has more to do, so the next round comes at once. Each round does only a part of what may take
    long: the success of the first part ends `failing_s`. With `at_once=False` the first round comes after the interval.
    An outage is said once, and its end.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[bool | None]], every: float, *, at_once: bool = True
    ) -> None:
        self.name = name
        self._work = work
        self._every = every
        self._at_once = at_once
        self._woken = asyncio.Event()
        self._outage: str | None = None
        self._failed: tuple[float, float] | None = None  # when the first failure in a row ended, and the last one
        self._background = Background(name, self._rounds)

    @property
    def failing_s(self) -> float:
        """For how many seconds each round has failed: from the first failure in a row to the last one.

        The time since does not count: nothing was tried in it, or a round is still at work.
        """
        if self._failed is None:
            return 0.0
        first, last = self._failed
        return last - first

    def start(self) -> None:
        """Begin."""
        _repeated.add(self)
        self._background.start()

    def wake(self) -> None:
        """Do a round now, or right after the round that is running."""
        self._woken.set()

    async def stop(self) -> None:
        """Stop, also in the middle of a round, and wait for its end."""
        _repeated.discard(self)
        await self._background.stop()

    async def ping(self) -> None:
        """Raise Unavailable while there are no rounds; for Health.add."""
        await self._background.ping()

    async def _rounds(self) -> None:
        beat(first=True)
        if not self._at_once:
            await self._pause()
        while True:
            self._woken.clear()
            try:
                if await cancellable(self._work()):
                    self.wake()
                self._note(None)
                self._failed = None
            except Exception as error:
                now = time.monotonic()
                self._failed = (self._failed[0] if self._failed else now, now)
                if isinstance(error, Unavailable):
                    self._note(str(error))
                else:
                    logger.exception("failed", work=self.name)
            await self._pause()

    def _note(self, outage: str | None) -> None:
        if outage != self._outage:
            if outage is None:
                logger.info("goes on", work=self.name)
            else:
                logger.warning("put off", work=self.name, reason=outage)
        self._outage = outage

    async def _pause(self) -> None:
        with waiting(), suppress(TimeoutError):
            async with asyncio.timeout(self._every):
                await self._woken.wait()


_repeated: WeakSet[Repeated] = WeakSet()


def failing() -> dict[str, float]:
    """Return for each work that is done again and again how many seconds it has failed each time; 0: it does not."""
    seconds: dict[str, float] = {}
    for one in _repeated:
        seconds[one.name] = max(one.failing_s, seconds.get(one.name, 0.0))
    return seconds


R = TypeVar("R", Background, Repeated)


@asynccontextmanager
async def running(background: R) -> AsyncIterator[R]:
    """Start the work, and stop it when the block ends."""
    background.start()
    try:
        yield background
    finally:
        await background.stop()


class Tasks:
    """Work that nobody waits for. Each task is kept alive until it ends, and a failure is logged."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def count(self) -> int:
        """How many have begun and not ended."""
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Begin, and return the task for a caller that does want to wait."""
        task = asyncio.create_task(work, name=name, context=apart())
        self._running.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Wait until all that runs now has ended."""
        if self._running:
            await asyncio.wait(self._running)

    async def close(self, grace_s: float = 0) -> None:
        """Give the running tasks `grace_s` seconds to finish, then cancel them and wait for their end."""
        if self._running and grace_s:
            await asyncio.wait(self._running, timeout=grace_s)
        await _cancel(*self._running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("a task failed", work=task.get_name(), reason=f"{type(error).__name__}: {error}")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` beside the block, which may await the task. If it still runs at the block's end, it is cancelled."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        await _cancel(task)


async def cancellable(work: Awaitable[T]) -> T:
    """Await `work` that may lose a cancellation, and end with CancelledError all the same.

    asyncio.wait_for of Python 3.11, which nats-py uses, returns its result when the result and a cancellation come
    together. A loop around it would go on, and whoever stops the loop would wait for ever.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    return task.result()


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait for their end. Their exceptions are ignored: nobody needs the results any more."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # read it, or asyncio logs that it was never retrieved


def is_cancelled() -> bool:
    """Whether the current task was told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

"""What a process does again and again beside its requests."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

logger = get_logger(__name__)


class Background:
    """Does `work` at start, then at regular intervals and when woken; an outage costs one round."""

    def __init__(self, name: str, work: Callable[[], Awaitable[object]], interval: timedelta) -> None:
        self._name = name
        self._work = work
        self._interval = interval.total_seconds()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin in the background."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def wake(self) -> None:
        """Do it as soon as what is being done is done."""
        self._woken.set()

    async def stop(self) -> None:
        """Stop, also in the middle: what was not done is found again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                await self._work()
            except Unavailable as error:
                logger.warning("put off", work=self._name, reason=str(error))
            except Exception:
                logger.exception("failed", work=self._name)
            try:
                async with asyncio.timeout(self._interval):
                    await self._woken.wait()
            except TimeoutError:
                pass

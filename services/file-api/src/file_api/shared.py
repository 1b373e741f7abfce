"""Work that several callers want at the same time and that is done once for all of them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from tlim_runtime.logging import get_logger

logger = get_logger(__name__)

Result = TypeVar("Result")


class SharedWork(Generic[Result]):
    """Runs one task for each key, for whoever asks while it runs; it goes on when they go away."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[object, asyncio.Task[Result]] = {}

    async def do(self, key: object, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return what the task of `key` returns, or raise what it raises; `work` begins it when none is running."""
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(work(), name=f"{self._name} {key}")
            self._running[key] = running
            running.add_done_callback(lambda task: self._ended(key, task))
        return await asyncio.shield(running)

    def _ended(self, key: object, task: asyncio.Task[Result]) -> None:
        del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:  # nobody may be there to hear it
            logger.info("shared work failed", work=self._name, key=key, reason=str(error))

    async def close(self) -> None:
        """Break off what runs; it can be asked for again."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

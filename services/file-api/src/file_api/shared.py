"""Work that several callers want at the same time: it is done once for all of them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from tlim_runtime.background import Tasks

Result = TypeVar("Result")


class SharedWork(Generic[Result]):
    """Runs one task for each key. All callers during the run share it, and it goes on when they go away."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks = Tasks()
        self._running: dict[object, asyncio.Task[Result]] = {}

    async def do(self, key: object, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return what the task of `key` returns, or raise what it raises; `work` begins it when none is running."""
        running = self._running.get(key)
        if running is None:
            running = self._tasks.start(work(), f"{self._name} {key}")
            self._running[key] = running
            running.add_done_callback(lambda _: self._running.pop(key))
        return await asyncio.shield(running)

    async def close(self) -> None:
        """Cancel all running work; it can be asked for again."""
        await self._tasks.close()

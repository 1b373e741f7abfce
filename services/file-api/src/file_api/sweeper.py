"""The background task that removes what belongs to nobody."""

import asyncio
from datetime import timedelta

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.disposal import Disposal

logger = get_logger(__name__)


class Sweeper:
    """Sweeps at start and then regularly; an outage costs one round."""

    def __init__(self, disposal: Disposal, interval: timedelta) -> None:
        self._disposal = disposal
        self._interval = interval.total_seconds()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep in the background."""
        self._task = asyncio.create_task(self._run(), name="sweeper")

    async def stop(self) -> None:
        """Stop, also in the middle: what was not removed is found again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._disposal.sweep()
            except Unavailable as error:
                logger.warning("sweep put off", reason=str(error))
            except Exception:
                logger.exception("sweep failed")
            await asyncio.sleep(self._interval)

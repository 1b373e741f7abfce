"""The background task that finds out what there is to know about new files."""

import asyncio
from datetime import timedelta

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.previews import Previews

logger = get_logger(__name__)


class Examiner:
    """Looks into new files one after the other; several processes share the work. An outage costs one round."""

    def __init__(self, previews: Previews, interval: timedelta) -> None:
        self._previews = previews
        self._interval = interval.total_seconds()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for new files in the background."""
        self._task = asyncio.create_task(self._run(), name="examiner")

    async def stop(self) -> None:
        """Stop, also in the middle: the file is looked into later."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                while await self._previews.examine_next():
                    pass
            except Unavailable as error:
                logger.warning("looking into files is put off", reason=str(error))
            except Exception:
                logger.exception("looking into files failed")
            await asyncio.sleep(self._interval)

"""What the leader does beside storing, on connections of the pool: room for new messages, and the search index."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tlim_runtime.database import Database
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import DatabaseUnavailable

from message_store.metrics import StoreMetrics
from message_store.partition_repository import Partitions
from message_store.search.indexer import Indexer
from message_store.search.repository import SearchIndex

logger = get_logger(__name__)

LOOK_EVERY_S = 10.0
"""At 10,000 messages a second that is a hundredth of a partition, and half a partition is kept in reserve."""


class PartitionKeeper:
    """Adds partitions long before seqs come to the last one's end."""

    def __init__(self, partitions: Partitions, span: int) -> None:
        self._partitions = partitions
        self._span = span
        self._bound = 0

    async def ensure(self) -> None:
        """Have room for at least half a partition of new seqs; raises DatabaseUnavailable."""
        needed = await self._partitions.newest_seq() + self._span // 2
        if needed >= self._bound:
            self._bound = await self._partitions.add(self._span, needed)

    async def run(self) -> None:
        """Ensure it for as long as this runs."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.ensure()
            except DatabaseUnavailable as error:
                logger.warning("cannot look after partitions", reason=str(error))
            except Exception:
                logger.exception("cannot look after partitions")


@asynccontextmanager
async def upkeep(database: Database, metrics: StoreMetrics, partition_span: int) -> AsyncIterator[None]:
    """Make room for new messages, then keep doing so, and follow the log with the search index, while entered.

    Raises DatabaseUnavailable when there is no telling whether there is room.
    """
    keeper = PartitionKeeper(Partitions(database), partition_span)
    await keeper.ensure()
    tasks = [
        asyncio.create_task(keeper.run(), name="partitions"),
        asyncio.create_task(Indexer(SearchIndex(database), metrics).run(), name="search index"),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

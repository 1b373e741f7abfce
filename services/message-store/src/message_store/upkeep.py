"""What one of the stores does for all of them, on connections of the pool: adding partitions, and the search index."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tlim_runtime.background import Repeated, running
from tlim_runtime.database import Database
from tlim_runtime.health import Ping

from message_store.metrics import StoreMetrics
from message_store.partition_repository import Partitions
from message_store.search.indexer import INDEX_EVERY_S, Indexer
from message_store.search.repository import SearchIndex

LOOK_EVERY_S = 10.0
"""Often enough: at 10,000 messages a second, 1 % of a partition is used in that time, and half of one is in reserve."""


class PartitionKeeper:
    """Adds partitions long before the last one is full."""

    def __init__(self, partitions: Partitions, span: int) -> None:
        self._partitions = partitions
        self._span = span
        self._bound = 0

    async def ensure(self) -> None:
        """Have room for at least half a partition of new seqs; raises DatabaseUnavailable."""
        needed = await self._partitions.newest_seq() + self._span // 2
        if needed >= self._bound:
            self._bound = await self._partitions.add(self._span, needed)


async def room_for_messages(database: Database, partition_span: int) -> None:
    """Make room for new messages, before the first one; raises DatabaseUnavailable."""
    await PartitionKeeper(Partitions(database), partition_span).ensure()


@asynccontextmanager
async def upkeep(database: Database, metrics: StoreMetrics, partition_span: int) -> AsyncIterator[Sequence[Ping]]:
    """Make room for new messages on entering; while entered, keep doing so and index the log for search.

    Gives the pings of both. Raises DatabaseUnavailable when the first check for room fails.
    """
    keeper = PartitionKeeper(Partitions(database), partition_span)
    await keeper.ensure()
    partitions = Repeated("partitions", keeper.ensure, LOOK_EVERY_S, at_once=False)
    index = Repeated("search index", Indexer(SearchIndex(database), metrics).round, INDEX_EVERY_S)
    async with running(partitions), running(index):
        yield partitions.ping, index.ping

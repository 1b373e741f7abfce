"""The indexer beside its index: it stops when it is told to."""

import asyncio

from message_store.metrics import StoreMetrics
from message_store.search.indexer import Indexer
from message_store.search.repository import SearchIndex
from tlim_runtime.background import Background
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import DatabaseUnavailable


class LosesCancellations(SearchIndex):
    """An index whose connection breaks while it is given back, and the failure takes the place of the cancellation."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def position(self) -> tuple[int, int]:
        self.asked.set()
        try:
            await asyncio.sleep(3600)
        finally:
            raise DatabaseUnavailable("lost")


async def test_an_indexer_whose_database_loses_a_cancellation_stops_all_the_same() -> None:
    index = LosesCancellations()
    background = Background("search index", Indexer(index, StoreMetrics(Metrics())).run)
    background.start()
    await index.asked.wait()
    async with asyncio.timeout(5):
        await background.stop()

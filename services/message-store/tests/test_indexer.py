"""The indexer beside its index: it stops when it is told to."""

import asyncio

import pytest
from message_store.metrics import StoreMetrics
from message_store.search.indexer import Indexer
from message_store.search.repository import SearchIndex, Unindexed
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


class CannotBeRead(SearchIndex):
    """An index that is far behind, and cannot read what is next."""

    def __init__(self) -> None:
        pass

    async def position(self) -> tuple[int, int]:
        return 1_000, 51_000

    async def after(self, position: int, count: int, max_chars: int) -> tuple[list[Unindexed], bool]:
        raise LookupError(f"a mistake at {position}, {count}, {max_chars}")


async def test_the_lag_is_seen_although_indexing_fails_each_time() -> None:
    metrics = Metrics()
    with pytest.raises(LookupError):
        await Indexer(CannotBeRead(), StoreMetrics(metrics)).advance()
    assert metrics.registry.get_sample_value("tlim_message_store_search_lag_messages") == 50_000


async def test_an_indexer_whose_database_loses_a_cancellation_stops_all_the_same() -> None:
    index = LosesCancellations()
    background = Background("search index", Indexer(index, StoreMetrics(Metrics())).run)
    background.start()
    await index.asked.wait()
    async with asyncio.timeout(5):
        await background.stop()

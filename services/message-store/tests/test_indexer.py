"""The indexer beside its index: it rests, tells how far behind it is, and stops when it is told to."""

import asyncio
from types import SimpleNamespace

import pytest
from message_store.metrics import StoreMetrics
from message_store.search import indexer
from message_store.search.indexer import INDEX_EVERY_S, Indexer
from message_store.search.repository import SearchIndex, Unindexed
from tlim_devstack.clock import Clock
from tlim_runtime.background import Repeated
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


class FarBehind(SearchIndex):
    """An index that takes 3 s to read what is next, and has caught up with the third reading."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = 3

    async def position(self) -> tuple[int, int]:
        return 1_000, 1_500

    async def after(self, *_: int) -> tuple[list[Unindexed], bool]:
        self._clock.now += 3
        self._left -= 1
        return [], self._left > 0


async def test_the_lag_is_seen_although_indexing_fails_each_time() -> None:
    metrics = Metrics()
    with pytest.raises(LookupError):
        await Indexer(CannotBeRead(), StoreMetrics(metrics)).advance()
    assert metrics.registry.get_sample_value("tlim_message_store_search_lag_messages") == 50_000


async def test_an_indexer_whose_database_loses_a_cancellation_stops_all_the_same() -> None:
    index = LosesCancellations()
    repeated = Repeated("search index", Indexer(index, StoreMetrics(Metrics())).round, INDEX_EVERY_S)
    repeated.start()
    await index.asked.wait()
    async with asyncio.timeout(5):
        await repeated.stop()


async def test_far_behind_it_rests_as_long_as_it_works_and_then_goes_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def rest(seconds: float) -> None:
        rests.append(seconds)

    clock, rests = Clock(), list[float]()
    monkeypatch.setattr(indexer, "time", clock)
    monkeypatch.setattr(indexer, "asyncio", SimpleNamespace(sleep=rest))
    index = FarBehind(clock)
    worker = Indexer(index, StoreMetrics(Metrics()))
    assert [await worker.round() for _ in range(3)] == [True, True, False]
    assert rests == [3, 3]

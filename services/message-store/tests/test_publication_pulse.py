"""Liveness while rows are published from the table: neither the one that publishes nor the others seem to hang."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from message_store import publication
from message_store.metrics import StoreMetrics
from message_store.models import Audience
from message_store.publication import Publication
from message_store.publication_repository import PublicationTables
from message_store.stream_end import Newest
from message_store.values import DeliveredRow, LogRow
from tlim_devstack.clock import Clock
from tlim_protocol.registry import MsgType
from tlim_runtime import pulse
from tlim_runtime.background import Background, running, stuck
from tlim_runtime.broker import Broker
from tlim_runtime.metrics import Metrics
from tlim_runtime.pulse import HUNG_S, beat

PAGES = 5


class SlowTables(PublicationTables):
    """Tables whose every page takes nearly as long as work may stand still."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.hung: list[str] = []
        self.read = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def enter_publication(self) -> None:
        pass

    async def leave_publication(self) -> None:
        pass

    async def published(self) -> int:
        return 0

    async def save_published(self, seq: int, *, leave: bool) -> None:
        pass

    async def messages_after(self, seq: int, _limit: int, _before: int) -> list[DeliveredRow]:
        self.read.set()
        await self.goes_on.wait()
        self._clock.now += HUNG_S - 1
        self.hung += stuck()
        return [recalled(seq + 1)] if seq < PAGES else []


def recalled(seq: int) -> DeliveredRow:
    row = LogRow(
        seq, "u:alice:bob", "alice", "bob", Audience.RECIPIENT, f"m{seq}", MsgType.TEXT, True, "2.0.0", "[]", "", "", 1
    )
    return DeliveredRow(row, True, ["bob"])


async def empty(_broker: Broker) -> Newest:
    return Newest(is_fresh=False, seq=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pulse, "time", clock)
    monkeypatch.setattr(publication, "newest_in", empty)
    return clock


class Silent:
    """A broker to which nothing is published."""

    max_payload = 1_000_000

    async def publish_batch(self, messages: Sequence[object]) -> None:
        raise AssertionError(messages)


async def test_a_restore_of_many_pages_keeps_nobody_from_being_alive(clock: Clock) -> None:
    tables = SlowTables(clock)
    published = Publication(tables, cast("Broker", Silent()), StoreMetrics(Metrics()))
    restored, asks = asyncio.Event(), asyncio.Event()

    async def restore() -> None:
        beat(first=True)
        await published.restore()
        restored.set()

    async def another() -> None:
        beat(first=True)
        asks.set()
        async with published.turn():
            pass

    async with asyncio.timeout(30), running(Background("restore", restore)):
        await tables.read.wait()
        async with running(Background("another", another)):
            await asks.wait()
            tables.goes_on.set()
            await restored.wait()
    assert tables.hung == []


async def test_a_restore_ends_the_alert_about_what_is_not_published(clock: Clock) -> None:
    tables, metrics = SlowTables(clock), Metrics()
    store_metrics = StoreMetrics(metrics)
    tables.goes_on.set()
    store_metrics.lag(3)
    await Publication(tables, cast("Broker", Silent()), store_metrics).restore()
    assert metrics.registry.get_sample_value("tlim_message_store_publication_lag_messages") == 0


async def test_a_turn_is_given_back_by_whoever_fails_in_it_or_waits_for_it_in_vain(clock: Clock) -> None:
    published = Publication(SlowTables(clock), cast("Broker", Silent()), StoreMetrics(Metrics()))

    async def take() -> None:
        async with published.turn():
            pass

    async def fail_while_another_waits() -> None:
        async with published.turn():
            in_vain = asyncio.create_task(take())
            await asyncio.sleep(0)
            in_vain.cancel()
            await asyncio.wait([in_vain])
            raise LookupError

    with pytest.raises(LookupError):
        await fail_while_another_waits()
    async with asyncio.timeout(30):
        await take()

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import subject_in
from tlim_runtime import pulse
from tlim_runtime.background import stuck
from tlim_runtime.broker import Broker, BrokerUnavailable, MessageTooLarge, Outgoing
from tlim_runtime.database import Database
from tlim_runtime.metrics import Metrics
from tlim_runtime.outbox import BATCH_BYTES, Outbox, OutboxRelay
from tlim_runtime.tables import new_metadata

SUBJECT = subject_in(MsgType.SESSION_ADDED, "a session")
Eventually = Callable[[Callable[[], object], str], Awaitable[None]]
METADATA = new_metadata()
OUTBOX = Outbox(METADATA)


@pytest_asyncio.fixture
async def database(make_empty_database: Callable[[str], str]) -> AsyncIterator[Database]:
    database = Database(make_empty_database("session_api"))
    async with database.engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    yield database
    await database.close()


class Restartable(Protocol):
    def start(self) -> None: ...
    def kill(self) -> None: ...


async def add(database: Database, *numbers: int) -> None:
    async with database.session() as session:
        for number in numbers:
            await OUTBOX.add(session, SUBJECT, str(number).encode(), f"id-{number}")


async def left(database: Database) -> int:
    async with database.session() as session:
        return int(await session.scalar(sa.select(sa.func.count()).select_from(OUTBOX.table)) or 0)


async def published(broker: Broker) -> list[int]:
    state = await broker.stream_state(StreamName.IN)
    stored = [await broker.api(f"STREAM.MSG.GET.{StreamName.IN}", seq=seq) for seq in range(1, state.last_seq + 1)]
    return [int(base64.b64decode(answer["message"]["data"])) for answer in stored]


def is_well(relay: OutboxRelay) -> bool:
    return not relay._reason


async def test_flush_publishes_in_order_and_empties_the_table(database: Database, broker: Broker) -> None:
    relay = OutboxRelay(database, broker, OUTBOX)
    await relay.start()
    await add(database, *range(450))
    assert await relay.flush(timeout_s=30)
    assert await published(broker) == list(range(450))
    assert await left(database) == 0
    await relay.stop()


async def test_large_events_are_published_a_few_at_a_time(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    publish_batch = broker.publish_batch

    async def note(items: Sequence[Outgoing]) -> None:
        batches.append(len(items))
        await publish_batch(items)

    monkeypatch.setattr(broker, "publish_batch", note)
    async with database.session() as session:
        for number in range(8):
            await OUTBOX.add(session, SUBJECT, b" " * (BATCH_BYTES // 3) + str(number).encode(), f"id-{number}")
    relay = OutboxRelay(database, broker, OUTBOX)
    await relay.start()
    assert await relay.flush(timeout_s=30)
    assert batches == [3, 3, 2]
    assert await published(broker) == list(range(8))
    await relay.stop()


async def test_what_a_crash_left_is_published_at_the_next_start(database: Database, broker: Broker) -> None:
    await add(database, 1, 2)
    relay = OutboxRelay(database, broker, OUTBOX)
    await relay.start()
    assert await relay.flush(timeout_s=30)
    assert await published(broker) == [1, 2]
    await relay.stop()


async def test_several_instances_publish_each_event_once_and_in_order(database: Database, broker: Broker) -> None:
    relays = [OutboxRelay(database, broker, OUTBOX) for _ in range(3)]
    for relay in relays:
        await relay.start()
    for number in range(60):
        await add(database, number)
        assert await relays[number % 3].flush(timeout_s=30)
    assert await published(broker) == list(range(60))
    for relay in relays:
        await relay.stop()


async def test_a_rolled_back_event_is_never_published(database: Database, broker: Broker) -> None:
    relay = OutboxRelay(database, broker, OUTBOX)
    await relay.start()
    async with database.session() as session:
        await OUTBOX.add(session, SUBJECT, b"1", "id-1")
        await session.rollback()
    assert await relay.flush(timeout_s=30)
    assert await published(broker) == []
    await relay.stop()


async def test_events_of_an_outage_wait_and_are_published_when_it_ends(
    database: Database, restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually
) -> None:
    relay = OutboxRelay(database, restartable_broker, OUTBOX)
    await relay.start()
    await asyncio.to_thread(restartable_nats.kill)
    await eventually(lambda: not restartable_broker.is_connected, "the loss was noticed")
    await add(database, 1)
    assert not await relay.flush(timeout_s=30)  # at once, when the attempt has failed
    with pytest.raises(Exception, match="NATS"):
        await relay.ping()
    await asyncio.to_thread(restartable_nats.start)
    await add(database, 2)
    await eventually(lambda: is_well(relay), "it came back")
    assert await relay.flush(timeout_s=30)
    assert await published(restartable_broker) == [1, 2]
    await relay.ping()
    await relay.stop()


async def test_while_the_last_attempt_failed_nobody_waits(
    database: Database, restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually
) -> None:
    relay = OutboxRelay(database, restartable_broker, OUTBOX)
    await asyncio.to_thread(restartable_nats.kill)
    await eventually(lambda: not restartable_broker.is_connected, "the loss was noticed")
    await relay.start()
    await add(database, 1)
    for _ in range(20):
        assert not await relay.flush(timeout_s=3_600)
    assert relay._waiters == []
    with pytest.raises(BrokerUnavailable):
        await relay.require_broker()
    await relay.stop()


async def test_an_event_that_is_too_large_stays_with_its_reason_and_holds_up_nobody(
    database: Database, broker: Broker
) -> None:
    async with database.session() as session:
        await OUTBOX.add(session, SUBJECT, b"1", "id-1")
        await OUTBOX.add(session, SUBJECT, b" " * (broker.max_payload - len("id-2")), "id-2")
        await OUTBOX.add(session, SUBJECT, b"3", "id-3")
    relay = OutboxRelay(database, broker, OUTBOX)
    await relay.start()
    assert await relay.flush(timeout_s=30)
    assert await published(broker) == [1, 3]
    await relay.ping()
    async with database.session() as session:
        ((message_id, reason),) = await session.execute(sa.select(OUTBOX.table.c.message_id, OUTBOX.table.c.refused))
    assert message_id == "id-2"
    assert "max_payload" in reason
    await relay.stop()


async def test_the_largest_event_that_nats_takes_is_published(database: Database, broker: Broker) -> None:
    headers = len("NATS/1.0\r\nNats-Msg-Id: id-1\r\n\r\n")
    async with database.session() as session:
        await OUTBOX.add(session, SUBJECT, b"1".rjust(broker.max_payload - headers), "id-1")
    relay = OutboxRelay(database, broker, OUTBOX)
    await relay.start()
    assert await relay.flush(timeout_s=30)
    assert await published(broker) == [1]
    await relay.stop()


async def test_a_message_that_is_too_large_is_refused_and_the_connection_stays(broker: Broker) -> None:
    with pytest.raises(MessageTooLarge):
        await broker.publish(SUBJECT, b" " * broker.max_payload, "id-1")
    await broker.publish(SUBJECT, b"2", "id-2")
    assert await published(broker) == [2]


async def test_an_event_that_is_not_published_can_be_withdrawn_and_a_published_one_cannot(
    database: Database, restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually
) -> None:
    await add(database, 1)
    relay = OutboxRelay(database, restartable_broker, OUTBOX)
    await relay.start()
    assert await relay.flush(timeout_s=30)
    await asyncio.to_thread(restartable_nats.kill)
    await add(database, 2, 3)
    async with database.session() as session:
        assert not await OUTBOX.withdraw(session, "id-1")
        assert await OUTBOX.withdraw(session, "id-2")
    await asyncio.to_thread(restartable_nats.start)
    await eventually(lambda: restartable_broker.is_connected, "it came back")
    await eventually(lambda: is_well(relay), "what waited was published")
    assert await relay.flush(timeout_s=30)
    assert await published(restartable_broker) == [1, 3]
    await relay.stop()


class Clock:
    """In place of the module `time` where the outbox's pulse reads it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


async def test_a_relay_whose_database_is_silent_hangs_and_one_that_waits_for_rows_does_not(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(pulse, "time", clock)
    relay = OutboxRelay(database, broker, OUTBOX)
    await relay.start()
    assert await relay.flush(timeout_s=30)
    clock.now += 2 * pulse.HUNG_S
    assert stuck() == []  # it waits for rows
    async with database.session() as session:
        await OUTBOX.publish_alone(session)  # a relay that wants to publish gets no answer meanwhile
        await add(database, 1)
        assert not await relay.flush(0.01)
        await _one_waits_for_a_lock(session)
        clock.now += 2 * pulse.HUNG_S
        assert stuck() == ["outbox relay: it hangs since 600 s"]
    assert await relay.flush(30)
    assert stuck() == []
    await relay.stop()


async def _one_waits_for_a_lock(session: AsyncSession) -> None:
    waits = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01), reraise=True):
        with attempt:
            assert await session.scalar(waits)


async def test_what_waits_in_the_outbox_is_a_metric(
    database: Database, restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually
) -> None:
    metrics = Metrics()
    await asyncio.to_thread(restartable_nats.kill)
    await eventually(lambda: not restartable_broker.is_connected, "the loss was noticed")
    await add(database, 1, 2, 3)
    relay = OutboxRelay(database, restartable_broker, OUTBOX, metrics)
    await relay.start()
    value = metrics.registry.get_sample_value
    await relay.count()
    assert value("tlim_outbox_rows", {"state": "waiting"}) == 3
    assert value("tlim_outbox_rows", {"state": "refused"}) == 0
    assert (value("tlim_database_size_bytes") or 0) > 0
    await relay.stop()

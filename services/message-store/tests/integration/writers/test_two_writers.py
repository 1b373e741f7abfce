"""Two stores that write at the same time: each message is stored once, and published in the order of seqs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import Any

import asyncpg
import pytest
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage
from tlim_runtime.background import beside
from tlim_runtime.broker import Outgoing
from tlim_runtime.outages import BrokerUnavailable, DatabaseUnavailable
from tlim_runtime.transactions import Connection

PATIENCE_S = 30  # nobody waits for ever

WAITING = """
    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"""

Publish = Callable[[Sequence[Outgoing]], Awaitable[None]]


async def test_a_message_that_another_store_has_stored_meanwhile_is_confirmed_and_not_delivered_again(
    world: Any, new_store: Any, accepted: Any
) -> None:
    one, other = await new_store(), await new_store()
    one.archive.meanwhile = lambda: other.record(accepted("m1"))
    assert await one.record(accepted("m1")) == [None]
    assert [row["msg_id"] for row in await world.rows()] == ["m1"]
    assert [(event.seq, event.recipients) for event in await world.out()] == [(1, ["bob"]), (1, [])]


async def test_a_msg_id_that_another_store_has_given_to_another_message_meanwhile_is_refused(
    world: Any, new_store: Any, accepted: Any
) -> None:
    one, other = await new_store(), await new_store()
    one.archive.meanwhile = lambda: other.record(accepted("m1", to="carol"))
    assert await one.record(accepted("m1")) == [None]
    assert [row["conversation_id"] for row in await world.rows()] == ["u:alice:carol"]
    (refused,) = [event for event in await world.out() if isinstance(event, RejectedMessage)]
    assert (refused.msg_id, refused.code) == ("m1", ErrorCode.FIELD_INVALID)


async def test_what_a_store_has_published_is_noted_before_it_goes_on(world: Any, new_store: Any, accepted: Any) -> None:
    one = await new_store()
    await one.record(accepted("m1"), accepted("m2"))
    assert await world.sql("SELECT published_seq FROM publication") == [(2,)]


def after_a_while(publish: Publish, seconds: Callable[[], float]) -> Publish:
    """Publish like a store whose way to NATS takes some time."""

    async def later(items: Sequence[Outgoing]) -> None:
        await asyncio.sleep(seconds())
        await publish(items)

    return later


async def test_what_two_stores_write_at_the_same_time_is_published_in_the_order_of_seqs(
    world: Any, new_store: Any, accepted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = [await new_store(), await new_store()]
    dice = random.Random(7)  # noqa: S311 - the same delays in every run

    async def write(store: Any, sender: str) -> None:
        monkeypatch.setattr(
            store.broker, "publish_batch", after_a_while(store.broker.publish_batch, lambda: dice.uniform(0, 0.02))
        )
        for batch in range(20):
            messages = [accepted(f"{batch}-{number}", sender, f"{sender}-{number}") for number in range(3)]
            assert await store.record(*messages) == [None, None, None]

    await asyncio.gather(write(stores[0], "alice"), write(stores[1], "bob"))
    seqs = [event.seq for event in await world.deliveries()]
    assert seqs == [row["seq"] for row in await world.rows()]
    assert len(seqs) == 120
    senders = [event.envelope.msg_from for event in await world.deliveries()]
    assert len(list(groupby(senders))) > 10  # they took turns


async def test_what_a_store_has_committed_before_it_died_is_published_by_the_next_one_before_its_own(
    world: Any, new_store: Any, accepted: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await new_store(), await new_store()
    begun = asyncio.Event()

    async def publish_for_ever(_: Sequence[Outgoing]) -> None:
        begun.set()
        await asyncio.Event().wait()

    await one.record(accepted("m0"))
    monkeypatch.setattr(one.broker, "publish_batch", publish_for_ever)
    async with beside(one.record(accepted("m1"), accepted("m2"))), asyncio.timeout(PATIENCE_S):
        await begun.wait()
        async with beside(other.record(accepted("m3"))) as waiting:

            async def waits() -> None:
                assert await world.sql(WAITING) == [(1,)]

            await eventually(waits)
            assert [row["msg_id"] for row in await world.rows()] == ["m0", "m1", "m2"]
            one.connection.terminate()
            assert await waiting == [None]
    told = [(event.seq, event.envelope.msg_id) for event in await world.deliveries()]
    assert told == [(1, "m0"), (2, "m1"), (3, "m2"), (4, "m3")]
    assert await world.sql("SELECT published_seq FROM publication") == [(4,)]


async def test_a_store_that_cannot_publish_lets_the_next_one_do_it(
    world: Any, new_store: Any, accepted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await new_store(), await new_store()
    publish = one.broker.publish_batch

    async def publish_some(items: Sequence[Outgoing]) -> None:
        await publish(items[:1])
        raise BrokerUnavailable("the stream was full for a moment")

    monkeypatch.setattr(one.broker, "publish_batch", publish_some)
    with pytest.raises(BrokerUnavailable):
        await one.record(accepted("m1"), accepted("m2"))
    monkeypatch.setattr(one.broker, "publish_batch", publish)
    async with asyncio.timeout(PATIENCE_S):
        await other.record(accepted("m3"))
        with pytest.raises(BrokerUnavailable):  # it has to compare first
            await one.record(accepted("m4"))
        await one.publication.restore()
        await one.record(accepted("m4"))
    assert {(event.seq, event.envelope.msg_id) for event in await world.deliveries()} == {
        (1, "m1"), (2, "m2"), (3, "m3"), (await newest(world), "m4")
    }  # fmt: skip
    seqs = [event.seq for event in await world.deliveries() if event.is_last]
    assert seqs == sorted(seqs)


async def newest(world: Any) -> int:
    return int((await world.rows())[-1]["seq"])


async def test_a_transaction_that_fails_in_the_end_lets_others_publish(
    new_store: Any, accepted: Any, session_event: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await new_store(), await new_store()

    async def fail(_: object) -> None:
        raise DatabaseUnavailable("canceling statement due to statement timeout")

    monkeypatch.setattr(one.archive, "note_applied", fail)
    with pytest.raises(DatabaseUnavailable):
        await one.record(session_event("s1", 1, "alice", "bob"))
    async with asyncio.timeout(PATIENCE_S):
        assert await other.record(accepted("m1")) == [None]


async def test_a_change_of_a_session_waits_for_a_store_that_publishes_and_does_not_stop_it(
    *,
    world: Any,
    new_store: Any,
    accepted: Any,
    session_event: Any,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Any,
) -> None:
    """Both numbers are in one row, and the store that publishes writes there while the other one waits for it."""
    one, other = await new_store(), await new_store()
    begun, goes_on = asyncio.Event(), asyncio.Event()
    publish = one.broker.publish_batch

    async def publish_later(items: Sequence[Outgoing]) -> None:
        begun.set()
        await goes_on.wait()
        await publish(items)

    monkeypatch.setattr(one.broker, "publish_batch", publish_later)
    async with beside(one.record(accepted("m1"))) as first, asyncio.timeout(PATIENCE_S):
        await begun.wait()
        async with beside(other.record(session_event("s1", 1, "alice", "bob"))) as second:

            async def waits() -> None:
                assert await world.sql(WAITING) == [(1,)]

            await eventually(waits)
            goes_on.set()
            assert (await first, await second) == ([None], [None])
    assert await world.sql("SELECT published_seq, applied_change FROM publication") == [(2, 1)]


async def record(store: Any, message: Any) -> None:
    await store.record(message)


async def look_for_files(store: Any, message: Any) -> None:
    await store.archive.shared_files([(message.envelope.msg_id, message.sender)])


@pytest.mark.parametrize("work", [record, look_for_files])
async def test_a_connection_that_answers_begin_too_late_is_given_up(
    new_store: Any, accepted: Any, work: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise all that follows would be published, and lost with the connection: it would be a part of that BEGIN."""
    one = await new_store()
    execute = asyncpg.Connection.execute

    async def late(connection: Connection, query: str, *arguments: Any, **options: Any) -> str:
        answer = await execute(connection, query, *arguments, **options)
        if connection is one.connection and query == "BEGIN;":
            raise TimeoutError
        return answer

    monkeypatch.setattr(asyncpg.Connection, "execute", late)  # connections have slots: none can be set on one of them
    with pytest.raises(DatabaseUnavailable):
        await work(one, accepted("m1"))
    assert one.connection.is_closed()


async def test_a_comparison_that_finds_nothing_missing_keeps_what_was_noted(
    world: Any, new_store: Any, accepted: Any
) -> None:
    """A resend draws a seq that no row has, and its event names the seq before."""
    one = await new_store()
    await one.record(accepted("m1"))
    await one.record(accepted("m1"))
    await one.publication.restore()
    assert await world.sql("SELECT published_seq FROM publication") == [(2,)]


async def test_nothing_is_looked_up_or_drawn_for_a_batch_that_must_not_be_published_yet(
    world: Any, new_store: Any, accepted: Any
) -> None:
    one = await new_store()
    await one.record(accepted("m1"))
    one.publication.doubt()
    with pytest.raises(BrokerUnavailable):
        await one.record(accepted("m2"))
    await one.publication.restore()
    await one.record(accepted("m3"))
    assert [row["seq"] for row in await world.rows()] == [1, 2]

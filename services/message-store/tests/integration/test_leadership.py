"""Several instances: they share the groups of shards, and what one had that ends or dies goes to the others."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from message_store import duty, upkeep
from message_store.duty import Duty
from message_store.gathering import Gathering
from message_store.leadership import Role
from message_store.metrics import StoreMetrics
from message_store.search.indexer import Indexer
from message_store.shares import UPKEEP
from message_store.upkeep import PartitionKeeper
from tlim_protocol.streams import STORE_GROUPS, store_group
from tlim_runtime import trimming
from tlim_runtime.background import Background, running
from tlim_runtime.broker import StreamState
from tlim_runtime.database import Database
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from tlim_runtime.trimming import Trimmer

WRITERS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'message-store writer' AND datname = current_database()"
)

OF_THE_RELEASE_BEFORE = 0x746C_696D_0001
"""The lock that its leader has alone."""

EVERYBODY = tuple(f"user{number}" for number in range(30))
ALL = [*range(STORE_GROUPS), UPKEEP]


def sizes(*apps: Any) -> list[int]:
    """Return how many groups each has; all groups, and the upkeep, are somebody's."""
    parts = [app.state.leadership.parts for app in apps]
    assert sorted(part for one in parts for part in one) == ALL
    return [len({*one} - {UPKEEP}) for one in parts]


async def test_two_instances_share_the_groups_and_both_are_ready(world: Any, accepted: Any, eventually: Any) -> None:
    async with world.running() as one, world.running() as other:

        async def settled() -> None:
            assert sizes(one, other) == [4, 4]
            for app in (one, other):
                assert app.state.leadership.role is Role.STORE
                assert set((await app.state.health.check()).values()) == {"ok"}

        await eventually(settled)
        await world.send(*(accepted(f"{to}-{number}", "alice", to) for number in range(3) for to in EVERYBODY))
        await world.settled(3 * len(EVERYBODY))
        assert sizes(one, other) == [4, 4]
    stored = [row["msg_id"] for row in await world.rows()]
    for to in EVERYBODY:
        assert [one for one in stored if one.startswith(f"{to}-")] == [f"{to}-{number}" for number in range(3)]
    assert [event.envelope.msg_id for event in await world.deliveries()] == stored


async def test_messages_stay_in_order_while_stores_come_and_go(world: Any, accepted: Any, eventually: Any) -> None:
    count = 0

    async def write(done: asyncio.Event) -> None:
        nonlocal count
        while not done.is_set():
            await world.send(*(accepted(f"{to}-{count}", "alice", to) for to in EVERYBODY))
            count += 1
            await asyncio.sleep(0.01)

    async def shared(*apps: Any) -> None:
        assert all(sizes(*apps))

    done = asyncio.Event()
    writing = asyncio.create_task(write(done))
    async with AsyncExitStack() as last:
        async with world.running() as one:
            async with world.running() as other:
                await eventually(lambda: shared(one, other))
                third = await last.enter_async_context(world.running())
                await eventually(lambda: shared(one, other, third))
            await eventually(lambda: shared(one, third))
            for (pid,) in await world.sql(WRITERS):
                await world.sql("SELECT pg_terminate_backend($1)", pid)
            await eventually(lambda: shared(one, third))
        await eventually(lambda: shared(third))
        done.set()
        await writing
        await world.settled(count * len(EVERYBODY))
    stored = [row["msg_id"] for row in await world.rows()]
    for to in EVERYBODY:
        assert [one for one in stored if one.startswith(f"{to}-")] == [f"{to}-{number}" for number in range(count)]
    first_deliveries = list(dict.fromkeys(event.seq for event in await world.deliveries()))
    assert first_deliveries == [row["seq"] for row in await world.rows()]


async def test_a_term_that_fails_leaves_no_number_behind_that_only_a_store_with_its_part_knows(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unended(self: Indexer) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._metrics.unindexed(9)

    monkeypatch.setattr(Indexer, "round", unended)
    metrics, database = Metrics(), Database(world.database_url)
    work = Duty(world.settings(), await world.connect("message-store"), database, metrics)
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))

    async def term() -> None:
        numbers = StoreMetrics(metrics)
        async with work.serve(connection) as begun:
            await begun.begin(UPKEEP)
            numbers.lag(7)
            numbers.drift(3)
            numbers.stream("TLIM_IN", 1, 2, 3)
            raise RuntimeError("the term fails")

    with pytest.raises(RuntimeError, match="the term fails"):
        await term()
    value = metrics.registry.get_sample_value
    assert value("tlim_message_store_publication_lag_messages") == 0
    assert value("tlim_message_store_search_lag_messages") == 0
    assert value("tlim_unread_drift") == 0
    assert value("tlim_stream_bytes", {"stream": "TLIM_IN"}) is None
    await connection.close()
    await database.close()


async def test_a_store_without_its_connection_stops_at_once_and_all_is_shared_again(
    world: Any, accepted: Any, eventually: Any
) -> None:
    async with world.running() as one, world.running() as other:

        async def settled() -> None:
            assert sizes(one, other) == [4, 4]

        await eventually(settled)
        await world.send(accepted("m1"))
        await world.settled(1)
        before = {pid for (pid,) in await world.sql(WRITERS)}
        for pid in before:
            await world.sql("SELECT pg_terminate_backend($1)", pid)

        async def settled_anew() -> None:
            now = {pid for (pid,) in await world.sql(WRITERS)}
            assert len(now) == len(before)
            assert not now & before
            await settled()

        await eventually(settled_anew)
        await world.send(accepted("m2"))
        await world.settled(2)
    assert [event.envelope.msg_id for event in await world.deliveries()] == ["m1", "m2"]


async def test_what_a_killed_store_had_is_stored_by_the_others(
    world: Any, accepted: Any, start_store: Any, eventually: Any
) -> None:
    killed = start_store(world)
    await world.send(*(accepted(f"1-{to}", "alice", to) for to in EVERYBODY))
    await world.settled(len(EVERYBODY))
    async with world.running() as other:

        async def has(parts: int) -> None:
            assert len(other.state.leadership.parts) == parts

        await eventually(lambda: has(STORE_GROUPS // 2))
        killed.kill()
        await world.send(*(accepted(f"2-{to}", "alice", to) for to in EVERYBODY))
        await world.settled(2 * len(EVERYBODY))
        await eventually(lambda: has(STORE_GROUPS + 1))
    assert len(await world.deliveries()) == 2 * len(EVERYBODY)


async def test_nobody_stores_beside_a_store_of_the_release_before(world: Any, accepted: Any, eventually: Any) -> None:
    before = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try_to_lead = "SELECT pg_try_advisory_lock($1)"
    assert await before.fetchval(try_to_lead, OF_THE_RELEASE_BEFORE)
    async with world.running() as app:

        async def is_(role: Role) -> None:
            assert app.state.leadership.role is role

        await eventually(lambda: is_(Role.STANDBY))
        assert set((await app.state.health.check()).values()) == {"ok"}
        assert app.state.leadership.parts == []
        await world.send(accepted("m1"))
        await before.close()
        await world.settled(1)
        before = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
        assert not await before.fetchval(try_to_lead, OF_THE_RELEASE_BEFORE)
        await before.close()


async def test_a_store_that_is_connected_and_has_no_jetstream_leaves_its_share_and_is_not_ready(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duty, "AWAY_S", 0.5)
    monkeypatch.setattr(duty, "LOOK_EVERY_S", 0.05)
    is_away = True
    broker, database = await world.connect("message-store"), Database(world.database_url)
    state = broker.stream_state

    async def stream_state(stream: str) -> StreamState:
        if is_away:
            raise BrokerUnavailable("JetStream system temporarily unavailable")
        found: StreamState = await state(stream)
        return found

    monkeypatch.setattr(broker, "stream_state", stream_state)
    work = Duty(world.settings(), broker, database, Metrics())
    leadership = work.leadership()

    async def is_(role: Role, parts: Sequence[int], *reasons: str) -> None:
        told = []
        try:
            await work.ping()
        except Unavailable as error:
            told.append(str(error))
        assert (leadership.role, list(leadership.parts), told) == (role, parts, [*reasons])

    async with running(work.looking), running(Background("leadership", leadership.run)):
        for _ in range(2):
            await eventually(lambda: is_(Role.DISCONNECTED, [], "JetStream system temporarily unavailable"))
            is_away = False
            await eventually(lambda: is_(Role.STORE, ALL))
            is_away = True
    await database.close()


async def test_a_store_without_its_locks_acknowledges_nothing_and_resets_no_consumer(
    world: Any, accepted: Any, eventually: Any
) -> None:
    database = Database(world.database_url)
    work = Duty(world.settings(), await world.connect("message-store"), database, Metrics())
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    group = store_group("u:alice:bob")
    async with running(work.looking), work.serve(connection) as begun:
        await begun.begin(group)
        await world.send(accepted("m1"))
        await world.settled(1)
        connection.terminate()
        await world.send(accepted("m2"))

        async def may_not() -> None:
            reasons = []
            try:
                await work.ping()
            except Unavailable as error:
                reasons.append(str(error))
            assert reasons == ["the connection with the locks of the groups is gone"]

        await eventually(may_not)
    await database.close()


@pytest.mark.parametrize(
    ("owner", "work", "name"),
    [
        (PartitionKeeper, "ensure", "partitions"),
        (Indexer, "round", "search index"),
        (Trimmer, "trim", "trimming for message-store-0"),
        (duty, "_test", "tests of the store's connection"),
        (duty, "_catch_up", "changes of sessions"),
        (Gathering, "tell", "gathered receipts"),
    ],
)
async def test_work_of_a_store_that_dies_shows_in_readiness_until_it_runs_again(
    *, world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, owner: Any, work: str, name: str
) -> None:
    dying = asyncio.Event()

    async def done_until_it_dies(*_: object) -> None:
        if dying.is_set():
            raise asyncio.CancelledError  # as a future does that somebody else has cancelled

    monkeypatch.setattr(owner, work, done_until_it_dies)
    monkeypatch.setattr(trimming, "INTERVAL_S", 0.01)
    monkeypatch.setattr(upkeep, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(upkeep, "INDEX_EVERY_S", 0.01)
    for interval in ("TEST_EVERY_S", "CATCH_UP_EVERY_S", "GATHER_EVERY_S"):
        monkeypatch.setattr(duty, interval, 0.01)

    async with world.running() as app:

        async def is_well() -> None:
            assert set((await app.state.health.check()).values()) == {"ok"}

        async def is_told() -> None:
            assert (await app.state.health.check())["inbox"].startswith(name)

        await eventually(is_well)
        dying.set()
        await eventually(is_told)
        dying.clear()
        await eventually(is_well)

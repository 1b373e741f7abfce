"""Two instances: one stores, the other stands by and takes over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from message_store import app as store
from message_store import upkeep
from message_store.app import Duty
from message_store.gathering import Gathering
from message_store.leadership import Leadership, Role
from message_store.metrics import StoreMetrics
from message_store.search.indexer import Indexer
from message_store.upkeep import PartitionKeeper
from tlim_runtime import trimming
from tlim_runtime.background import Background, running
from tlim_runtime.database import Database
from tlim_runtime.metrics import Metrics
from tlim_runtime.transactions import Connection
from tlim_runtime.trimming import Trimmer

LEADER = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'message-store leader' AND datname = current_database()"
)


async def roles(*apps: Any) -> list[Role]:
    return sorted(app.state.leadership.role for app in apps)


async def test_one_of_two_instances_leads_and_both_are_ready(world: Any, accepted: Any, eventually: Any) -> None:
    async with world.running() as one, world.running() as other:

        async def settled() -> None:
            assert await roles(one, other) == [Role.LEADER, Role.STANDBY]
            for app in (one, other):
                assert set((await app.state.health.check()).values()) == {"ok"}

        await eventually(settled)
        await world.send(accepted("m1"))
        await world.settled(1)
    assert len(await world.out()) == 1


async def test_the_leader_compiles_no_statement_as_the_pool_compiles_none(world: Any) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    @asynccontextmanager
    async def lead(connection: Connection) -> AsyncIterator[None]:
        told.put_nowait(await connection.fetchval("SHOW jit"))
        yield

    election = Background("leadership", Leadership(world.database_url, lead, 0.05, lambda _: None).run)
    async with running(election):
        assert await told.get() == "off"


async def test_a_term_that_fails_leaves_no_number_behind_that_only_a_leader_knows(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(self: Indexer) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self._metrics.unindexed(9)

    monkeypatch.setattr(Indexer, "run", run)
    metrics, database = Metrics(), Database(world.database_url)
    duty = Duty(world.settings(), await world.connect("message-store"), database, metrics)
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))

    async def term() -> None:
        numbers = StoreMetrics(metrics)
        async with duty.lead(connection):
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


async def test_a_standby_takes_over_when_the_leader_stops(world: Any, accepted: Any, eventually: Any) -> None:
    async with AsyncExitStack() as first:
        leader = await first.enter_async_context(world.running())

        async def leads() -> None:
            assert leader.state.leadership.role is Role.LEADER

        await eventually(leads)
        async with world.running() as second:

            async def stands_by() -> None:
                assert second.state.leadership.role is Role.STANDBY

            await eventually(stands_by)
            await world.send(accepted("m1"))
            await world.settled(1)
            await first.aclose()
            await world.send(accepted("m2"))
            await world.settled(2)
            assert second.state.leadership.role is Role.LEADER
    assert [event.envelope.msg_id for event in await world.deliveries()] == ["m1", "m2"]


async def test_a_leader_without_its_connection_stops_at_once_and_somebody_leads_again(
    world: Any, accepted: Any, eventually: Any
) -> None:
    async with world.running() as one, world.running() as other:

        async def settled() -> None:
            assert await roles(one, other) == [Role.LEADER, Role.STANDBY]

        await eventually(settled)
        await world.send(accepted("m1"))
        await world.settled(1)
        before = {pid for (pid,) in await world.sql(LEADER)}
        for pid in before:
            await world.sql("SELECT pg_terminate_backend($1)", pid)

        async def settled_anew() -> None:
            now = {pid for (pid,) in await world.sql(LEADER)}
            assert len(now) == len(before)
            assert not now & before
            await settled()

        await eventually(settled_anew)
        await world.send(accepted("m2"))
        await world.settled(2)
    assert [event.envelope.msg_id for event in await world.deliveries()] == ["m1", "m2"]


async def test_the_standby_takes_over_when_the_leader_is_killed(
    world: Any, accepted: Any, start_store: Any, eventually: Any
) -> None:
    leader = start_store(world)
    await world.send(accepted("m1"))
    await world.settled(1)
    async with world.running() as standby:

        async def stands_by() -> None:
            assert standby.state.leadership.role is Role.STANDBY

        await eventually(stands_by)
        leader.kill()
        await world.send(accepted("m2"))
        await world.settled(2)
        assert standby.state.leadership.role is Role.LEADER
    assert [event.envelope.msg_id for event in await world.deliveries()] == ["m1", "m2"]


@pytest.mark.parametrize(
    ("owner", "work", "name"),
    [
        (PartitionKeeper, "ensure", "partitions"),
        (Indexer, "run", "search index"),
        (Trimmer, "trim", "trimming for message-store-0"),
        (store, "_test", "tests of the leader's connection"),
        (store, "_catch_up", "changes of sessions"),
        (Gathering, "tell", "gathered receipts"),
    ],
)
async def test_work_of_the_leader_that_dies_shows_in_readiness_until_it_runs_again(
    *, world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, owner: Any, work: str, name: str
) -> None:
    dying = asyncio.Event()

    async def done_until_it_dies(*_: object) -> None:
        if owner is Indexer:  # all other work is done again and again
            await dying.wait()
        if dying.is_set():
            raise asyncio.CancelledError  # as a future does that somebody else has cancelled

    monkeypatch.setattr(owner, work, done_until_it_dies)
    monkeypatch.setattr(trimming, "INTERVAL_S", 0.01)
    monkeypatch.setattr(upkeep, "LOOK_EVERY_S", 0.01)
    for interval in ("TEST_EVERY_S", "CATCH_UP_EVERY_S", "GATHER_EVERY_S"):
        monkeypatch.setattr(store, interval, 0.01)

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

"""The store killed, PostgreSQL and NATS restarted while messages flow: all stored once, in order, all published."""

import asyncio
import random
from itertools import permutations
from typing import Any

from tlim_runtime.outages import BrokerUnavailable

SENDERS = ("alice", "bob", "carol", "dave")


def messages_of(accepted: Any, count: int) -> list[Any]:
    return [accepted(f"m{i}", SENDERS[i % 4], SENDERS[(i + 1 + i // 4 % 3) % 4]) for i in range(count)]


async def produce(world: Any, messages: list[Any], accepted_ids: dict[str, int]) -> None:
    """Publish as the bridge does: what is not acknowledged is sent again by its sender."""
    for message in messages:
        while message.envelope.msg_id not in accepted_ids:
            try:
                await world.send(message)
                accepted_ids[message.envelope.msg_id] = len(accepted_ids)
            except BrokerUnavailable:
                await world.broker_is_back()


async def check_nothing_is_lost(world: Any, messages: list[Any]) -> None:
    await world.settled(len(messages))
    stored = [(row["sender"], row["recipient"], row["msg_id"]) for row in await world.rows()]
    sent = [(message.sender, message.envelope.msg_to, message.envelope.msg_id) for message in messages]
    for pair in permutations(SENDERS, 2):
        assert [one for one in stored if one[:2] == pair] == [one for one in sent if one[:2] == pair]
    seqs = {event.envelope.msg_id: event.seq for event in await world.deliveries()}
    assert seqs == {row["msg_id"]: row["seq"] for row in await world.rows()}
    first_deliveries = list(dict.fromkeys(event.seq for event in await world.deliveries()))
    assert first_deliveries == sorted(first_deliveries)


async def test_a_store_killed_again_and_again_loses_nothing_and_stores_nothing_twice(
    world: Any, accepted: Any, start_store: Any, eventually: Any
) -> None:
    messages = messages_of(accepted, 1_000)
    dice = random.Random(7)  # noqa: S311 - the same moments in every run
    store = start_store(world)
    producing = asyncio.create_task(produce(world, messages, {}))
    for target in sorted(dice.sample(range(100, 900), 3)):

        async def is_there(target: int = target) -> None:
            ((stored,),) = await world.sql("SELECT count(*) FROM messages")
            assert stored >= target

        await eventually(is_there)
        store.kill()
        store.start()
    await producing
    await check_nothing_is_lost(world, messages)


async def test_a_restart_of_postgresql_is_waited_for(
    own_world: Any, restartable_postgres: Any, accepted: Any, eventually: Any
) -> None:
    messages = messages_of(accepted, 300)
    async with own_world.running() as app:
        await own_world.send(*messages[:100])
        await own_world.settled(100)
        restartable_postgres.stop()
        await own_world.send(*messages[100:200])

        async def is_red() -> None:
            assert set((await app.state.health.check()).values()) != {"ok"}

        await eventually(is_red)
        restartable_postgres.start()
        await own_world.send(*messages[200:])
        await check_nothing_is_lost(own_world, messages)

        async def is_green() -> None:
            assert set((await app.state.health.check()).values()) == {"ok"}

        await eventually(is_green)


async def test_a_restart_of_nats_is_waited_for(
    own_world: Any, restartable_nats: Any, accepted: Any, eventually: Any
) -> None:
    messages = messages_of(accepted, 600)
    accepted_ids: dict[str, int] = {}
    async with own_world.running() as app:
        producing = asyncio.create_task(produce(own_world, messages, accepted_ids))

        async def is_under_way() -> None:
            assert len(accepted_ids) > 200

        await eventually(is_under_way)
        restartable_nats.stop()

        async def is_red() -> None:
            assert set((await app.state.health.check()).values()) != {"ok"}

        await eventually(is_red)
        restartable_nats.start()
        await producing
        await check_nothing_is_lost(own_world, messages)

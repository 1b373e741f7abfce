"""Each group of shards has a consumer of its own, and goes on where the release before has stopped."""

from collections.abc import Sequence
from typing import Any

import nats as nats_client
import pytest
from message_store.earlier_consumer import pass_over_stored
from tlim_protocol.streams import STORE_GROUPS, STORE_INBOXES, UNGROUPED_STORE_INBOX, StreamName, store_group
from tlim_runtime.broker import Broker
from tlim_runtime.provision import consumer_config
from tlim_runtime.pull import PullSession

EVERYBODY = tuple(f"user{number}" for number in range(40))


async def floors(broker: Broker) -> list[int]:
    infos = [await broker.answered(f"CONSUMER.INFO.{one.stream}.{one.durable}") for one in STORE_INBOXES]
    return [info["ack_floor"]["stream_seq"] for info in infos]


async def pass_over_all(broker: Broker) -> None:
    for spec in STORE_INBOXES:
        await pass_over_stored(broker, spec)


@pytest.fixture
async def earlier(world: Any) -> Any:
    """The consumer of the release before; gives a function that acknowledges the oldest messages that wait for it."""
    client = await nats_client.connect(world.nats.url, user="tests", password=world.nats.passwords["tests"])
    config = consumer_config(UNGROUPED_STORE_INBOX)
    await client.jetstream().add_consumer(UNGROUPED_STORE_INBOX.stream.value, config)
    await client.close()

    async def acknowledge(count: int) -> None:
        session = PullSession(world.tests, UNGROUPED_STORE_INBOX, batch=count)
        await session.open()
        await session.begin()
        while count:
            for delivery in (await session.take())[:count]:
                await session.acknowledge(delivery)
                count -= 1
        await session.release()

    return acknowledge


async def test_messages_of_all_groups_are_stored_in_the_order_of_each_conversation(world: Any, accepted: Any) -> None:
    messages = [accepted(f"{to}-{number}", "alice", to) for number in range(5) for to in EVERYBODY]
    await world.send(*messages)
    async with world.running():
        await world.settled(len(messages))
    groups = {store_group(row["conversation_id"]) for row in await world.rows()}
    assert groups == set(range(STORE_GROUPS))
    stored = [row["msg_id"] for row in await world.rows()]
    for to in EVERYBODY:
        assert [one for one in stored if one.startswith(f"{to}-")] == [f"{to}-{number}" for number in range(5)]
    assert [event.envelope.msg_id for event in await world.deliveries()] == stored


async def test_what_the_release_before_has_stored_does_not_come_again(world: Any, accepted: Any, earlier: Any) -> None:
    await world.send(*(accepted(f"old-{to}", "alice", to) for to in EVERYBODY))
    await earlier(len(EVERYBODY))
    await world.send(*(accepted(f"new-{to}", "alice", to) for to in EVERYBODY))
    async with world.running():
        await world.settled(len(EVERYBODY))
    assert {row["msg_id"] for row in await world.rows()} == {f"new-{to}" for to in EVERYBODY}


async def test_after_a_rollback_it_goes_on_behind_both_releases(world: Any, accepted: Any, earlier: Any) -> None:
    await world.send(*(accepted(f"1-{to}", "alice", to) for to in EVERYBODY))
    async with world.running():
        await world.settled(len(EVERYBODY))
    reached = await floors(world.tests)
    await pass_over_all(world.tests)
    assert await floors(world.tests) == reached  # it is behind
    await world.send(*(accepted(f"2-{to}", "alice", to) for to in EVERYBODY))
    state = await world.tests.stream_state(StreamName.IN)
    await earlier(state.messages)
    await world.send(accepted("3"))
    async with world.running():
        await world.settled(len(EVERYBODY) + 1)
    assert (await world.rows())[-1]["msg_id"] == "3"


async def test_a_server_that_has_lost_messages_is_not_told_to_skip_new_ones(
    world: Any, accepted: Any, earlier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.send(accepted("m1"))
    await earlier(1)
    answered = world.tests.api

    async def api(operation: str, **arguments: Any) -> Any:
        answer = await answered(operation, **arguments)
        if operation.endswith(f".{UNGROUPED_STORE_INBOX.durable}"):
            answer["ack_floor"]["stream_seq"] = 1_000  # of the time before
        return answer

    monkeypatch.setattr(world.tests, "api", api)
    before: Sequence[int] = await floors(world.tests)
    await pass_over_all(world.tests)
    assert await floors(world.tests) == before

"""Provisioning makes what the protocol library says, again and again, and takes away what an earlier release had."""

from typing import Any

import nats as nats_client
import pytest
from nats.errors import NoServersError
from nats.js.api import AckPolicy, ConsumerConfig
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_devstack import nats
from tlim_devstack.servers import NatsServer
from tlim_devstack.waiting import free_port
from tlim_protocol.identity import delivery_shard
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import BRIDGE_OUTBOXES, CONSUMERS, StreamName
from tlim_protocol.subjects import ALL_OUT, lease_of_shard, subject_out
from tlim_runtime.broker import Broker, Outgoing, Overtaken
from tlim_runtime.provision import connected, provision

OUT = subject_out(MsgType.TEXT, "bob")


async def consumers(broker: Broker, stream: StreamName) -> list[str]:
    return sorted((await broker.answered(f"CONSUMER.NAMES.{stream}"))["consumers"])


async def state_of(broker: Broker, durable: str) -> dict[str, Any]:
    return await broker.answered(f"CONSUMER.INFO.{StreamName.OUT}.{durable}")


async def test_the_consumer_of_the_release_before_is_retired_with_what_waited_for_it(
    broker: Broker, nats_server: NatsServer
) -> None:
    client = await nats_client.connect(
        nats_server.url, user=nats.TEST_USER, password=nats_server.passwords[nats.TEST_USER]
    )
    try:
        jetstream = client.jetstream()
        old = ConsumerConfig(durable_name="xmpp-bridge", filter_subjects=[ALL_OUT], ack_policy=AckPolicy.EXPLICIT)
        await jetstream.add_consumer(StreamName.OUT.value, old)
        await broker.publish_batch([Outgoing(OUT, b"old", f"old-{number}") for number in range(5)])
        await provision(client)
        shards = sorted(spec.durable for spec in BRIDGE_OUTBOXES)
        assert await consumers(broker, StreamName.OUT) == shards
        assert (await broker.stream_state(StreamName.OUT)).messages == 0
        await broker.publish_batch([Outgoing(OUT, b"new", f"new-{number}") for number in range(3)])
        await provision(client)
        assert await consumers(broker, StreamName.OUT) == shards
        assert (await broker.stream_state(StreamName.OUT)).messages == 3
    finally:
        await client.close()


async def test_each_consumer_of_a_shard_is_pinned_and_reads_its_shard_only(broker: Broker) -> None:
    for spec in BRIDGE_OUTBOXES:
        config = (await state_of(broker, spec.durable))["config"]
        assert (config["priority_policy"], config["priority_groups"]) == ("pinned_client", [spec.group])
    await broker.publish(OUT, b"hello", "id-1")
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01), reraise=True):
        with attempt:  # the server acknowledges a message before it counts it for the consumer
            assert (await state_of(broker, BRIDGE_OUTBOXES[delivery_shard("bob")].durable))["num_pending"] == 1
    waiting = [(await state_of(broker, spec.durable))["num_pending"] for spec in BRIDGE_OUTBOXES]
    assert sorted(waiting) == [0] * (len(BRIDGE_OUTBOXES) - 1) + [1]
    assert len({spec.durable for spec in CONSUMERS}) == len(CONSUMERS)


async def test_of_two_bridges_that_want_a_lease_only_the_first_gets_it(broker: Broker, connect_broker: Any) -> None:
    one, other = await connect_broker("xmpp-bridge"), await connect_broker("xmpp-bridge")
    lease = lease_of_shard(3)
    first = await one.replace(lease, b"one", 0)
    with pytest.raises(Overtaken):
        await other.replace(lease, b"other", 0)
    second = await one.replace(lease, b"one again", first)
    await one.replace(lease_of_shard(4), b"another lease", 0)
    assert await other.replace(lease, b"other", second) > second
    with pytest.raises(Overtaken):
        await one.replace(lease, b"too late", second)
    assert (await broker.stream_state(StreamName.LEASES)).messages == 2


async def test_a_server_that_refuses_is_given_up_after_so_many_attempts_as_asked_for() -> None:
    nobody = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(NoServersError):
        async with connected(nobody, "provision", "", within_s=120, attempts=2):
            pytest.fail("nobody listens there")

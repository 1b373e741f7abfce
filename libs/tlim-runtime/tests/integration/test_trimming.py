"""What is done leaves the stream, what is not stays, and a stream with a living consumer is never full."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import pytest
from tlim_devstack.restartable import RestartableNats
from tlim_devstack.streams import inbox_of, newest
from tlim_protocol.identity import delivery_shard
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import BRIDGE_OUTBOXES, ConsumerSpec, StreamName
from tlim_protocol.subjects import every_in, subject_in, subject_of_shard, subject_out
from tlim_runtime import trimming
from tlim_runtime.broker import Broker, BrokerUnavailable, Outgoing
from tlim_runtime.consumer import DONE, BatchConsumer, Incoming, Verdict
from tlim_runtime.pull import PullSession
from tlim_runtime.trimming import Trimmer

STORE_INBOX = inbox_of("u:alice:bob")

IN = subject_in(MsgType.TEXT, "u:alice:bob")
OUT = subject_out(MsgType.TEXT, "bob")
OUTBOX = BRIDGE_OUTBOXES[delivery_shard("bob")]
Eventually = Callable[[Callable[[], object], str], Awaitable[None]]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, time: timedelta) -> None:
        self.now += time.total_seconds()


async def send(broker: Broker, subject: str, numbers: Sequence[int], size: int = 1) -> None:
    await broker.publish_batch([Outgoing(subject, b"x" * size, f"id-{subject}-{number}") for number in numbers])


async def acknowledge(broker: Broker, spec: ConsumerSpec, count: int) -> None:
    """Acknowledge that many of the oldest messages, and wait until the server has counted them."""
    session = PullSession(broker, spec, batch=count)
    await session.open()
    await session.begin()
    left = count
    while left:
        for delivery in (await session.take())[:left]:
            await session.acknowledge(delivery)
            left -= 1
    await session.release()


async def first_kept(broker: Broker, stream: StreamName) -> int:
    return (await broker.stream_state(stream)).first_seq


async def test_what_is_acknowledged_leaves_the_stream_but_for_its_newest(broker: Broker) -> None:
    await send(broker, IN, range(10))
    trimmer = Trimmer(broker, STORE_INBOX)
    await trimmer.trim()
    assert await first_kept(broker, StreamName.IN) == 1
    await acknowledge(broker, STORE_INBOX, 6)
    await trimmer.trim()
    state = await broker.stream_state(StreamName.IN)
    assert (state.first_seq, state.messages) == (6, 5)
    await acknowledge(broker, STORE_INBOX, 4)
    await trimmer.trim()
    assert await newest(broker, StreamName.IN) is not None
    assert (await broker.stream_state(StreamName.IN)).messages == 1


async def test_what_is_acknowledged_stays_as_long_as_its_consumer_says(broker: Broker) -> None:
    clock = Clock()
    trimmer = Trimmer(broker, OUTBOX, clock)
    await send(broker, OUT, range(10))
    await acknowledge(broker, OUTBOX, 4)
    await trimmer.trim()
    clock.passes(OUTBOX.keep / 2)
    await acknowledge(broker, OUTBOX, 3)
    await trimmer.trim()
    clock.passes(OUTBOX.keep / 2 - timedelta(seconds=1))
    await trimmer.trim()
    assert await first_kept(broker, StreamName.OUT) == 1
    clock.passes(timedelta(seconds=1))
    await trimmer.trim()
    assert await first_kept(broker, StreamName.OUT) == 4
    clock.passes(OUTBOX.keep)
    await trimmer.trim()
    assert await first_kept(broker, StreamName.OUT) == 7


async def test_a_slow_shard_keeps_its_messages_while_another_is_trimmed_and_a_newest_event_always_remains(
    broker: Broker,
) -> None:
    clock = Clock()
    slow, quick = BRIDGE_OUTBOXES[0], BRIDGE_OUTBOXES[1]
    trimmers = [Trimmer(broker, spec, clock) for spec in (slow, quick)]

    async def trim_what_is_due() -> None:
        for _ in range(2):
            for trimmer in trimmers:
                await trimmer.trim()
            clock.passes(slow.keep)

    for number in range(10):
        for shard in (0, 1):
            await send(broker, subject_of_shard(MsgType.TEXT, shard), [number])
    await acknowledge(broker, quick, 10)
    await trim_what_is_due()
    state = await broker.stream_state(StreamName.OUT)
    assert (state.messages, state.first_seq, state.last_seq) == (10 + 1, 1, 20)
    assert await waiting(broker, slow) == 10
    await acknowledge(broker, slow, 10)
    await trim_what_is_due()
    state = await broker.stream_state(StreamName.OUT)
    assert (state.messages, state.last_seq) == (2, 20)
    assert await newest(broker, StreamName.OUT) is not None


async def test_a_consumer_with_several_filters_removes_only_what_they_take(
    broker: Broker, make_consumer: Callable[[ConsumerSpec], Awaitable[None]]
) -> None:
    mine = (MsgType.TEXT, MsgType.IMAGE)
    spec = ConsumerSpec(StreamName.IN, "of-some", tuple(every_in(kind) for kind in mine), keep=timedelta(0))
    await make_consumer(spec)
    for number in range(3):
        for kind in (MsgType.FILE, *mine):
            await send(broker, subject_in(kind, "u:alice:bob"), [number])
    await acknowledge(broker, spec, 6)
    await Trimmer(broker, spec).trim()
    state = await broker.stream_state(StreamName.IN)
    assert (state.first_seq, state.messages) == (1, 3 + 1)  # those of the other type, and the newest of all
    assert await waiting(broker, STORE_INBOX) == 4


async def waiting(broker: Broker, spec: ConsumerSpec) -> int:
    info = await broker.answered(f"CONSUMER.INFO.{spec.stream}.{spec.durable}")
    return int(info["num_pending"])


async def test_a_consumer_that_was_made_anew_loses_nothing_that_it_has_not_acknowledged(
    broker: Broker, make_consumer: Callable[[ConsumerSpec], Awaitable[None]]
) -> None:
    clock = Clock()
    trimmer = Trimmer(broker, OUTBOX, clock)
    await send(broker, OUT, range(10))
    await acknowledge(broker, OUTBOX, 9)
    await trimmer.trim()
    await broker.answered(f"CONSUMER.DELETE.{StreamName.OUT}.{OUTBOX.durable}")
    await make_consumer(OUTBOX)
    await acknowledge(broker, OUTBOX, 3)
    for expected in (1, 3):
        clock.passes(OUTBOX.keep)
        await trimmer.trim()
        assert await first_kept(broker, StreamName.OUT) == expected


async def test_after_a_reconnection_the_time_of_what_is_acknowledged_begins_anew(
    restartable_broker: Broker,
    restartable_nats: RestartableNats,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trimming, "INTERVAL_S", 3_600)  # nobody but this test looks
    broker, clock = restartable_broker, Clock()
    trimmer = Trimmer(broker, OUTBOX, clock)
    trimmer.start()
    await send(broker, OUT, range(10))
    await acknowledge(broker, OUTBOX, 9)
    await trimmer.trim()
    reconnections: list[None] = []

    async def reconnected() -> None:
        reconnections.append(None)

    broker.on_reconnect(reconnected)
    restartable_nats.stop()
    await eventually(lambda: not broker.is_connected, "the connection is gone")
    with pytest.raises(BrokerUnavailable):
        await trimmer.trim()
    restartable_nats.start()
    await eventually(lambda: reconnections, "the connection is back")
    clock.passes(OUTBOX.keep)
    await trimmer.trim()
    assert await first_kept(broker, StreamName.OUT) == 1
    clock.passes(OUTBOX.keep)
    await trimmer.trim()
    assert await first_kept(broker, StreamName.OUT) == 9
    await trimmer.stop()


async def test_a_small_stream_takes_many_times_its_size_while_somebody_consumes(
    broker: Broker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "INTERVAL_S", 0.02)
    await limit(broker, StreamName.IN, 100_000)
    handled: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.extend(message.stream_seq for message in batch)
        return [DONE] * len(batch)

    with pytest.raises(BrokerUnavailable, match="maximum bytes exceeded"):
        await send(broker, IN, range(200), size=1_000)
    waiting = (await broker.stream_state(StreamName.IN)).messages
    consumer = BatchConsumer(broker, STORE_INBOX, handle)
    await consumer.start()
    await eventually(lambda: len(handled) == waiting, "all that was taken is handled")
    for number in range(200, 1_000):
        await publish_patiently(broker, number)
    await eventually(lambda: len(handled) == waiting + 800, "everything is handled")
    assert handled == list(range(1, waiting + 801))
    assert consumer.healthy
    await consumer.stop()


async def test_a_server_that_is_killed_while_its_stream_is_trimmed_loses_nothing(
    restartable_broker: Broker,
    restartable_nats: RestartableNats,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trimming, "INTERVAL_S", 0.01)
    handled: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.extend(int(message.data) for message in batch)
        return [DONE] * len(batch)

    consumer = BatchConsumer(restartable_broker, STORE_INBOX, handle, batch=20)
    await consumer.start()
    for start in range(0, 2_000, 500):
        numbers = range(start, start + 500)
        await restartable_broker.publish_batch([Outgoing(IN, str(n).encode(), f"id-{n}") for n in numbers])
        await eventually(lambda start=start: handled and handled[-1] > start, "some are handled")  # type: ignore[misc]
        await asyncio.to_thread(restartable_nats.kill)
        await asyncio.to_thread(restartable_nats.start)
        await eventually(lambda: restartable_broker.is_connected, "the connection is back")
    await eventually(lambda: handled[-1] == 1_999, "everything is handled")
    assert list(dict.fromkeys(handled)) == list(range(2_000))
    await consumer.stop()


async def test_trimming_that_fails_is_tried_again_and_disturbs_nobody(
    broker: Broker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "INTERVAL_S", 0.02)
    looks: list[int] = []
    handled: list[bytes] = []

    async def failing(_trimmer: Trimmer) -> None:
        looks.append(len(looks))
        raise [BrokerUnavailable("no answer"), ValueError("a bug")][len(looks) % 2]

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.extend(message.data for message in batch)
        return [DONE] * len(batch)

    monkeypatch.setattr(Trimmer, "trim", failing)
    consumer = BatchConsumer(broker, STORE_INBOX, handle)
    await consumer.start()
    await eventually(lambda: len(looks) > 3, "it was tried again")
    await send(broker, IN, [1])
    await eventually(lambda: handled, "messages pass")
    assert consumer.healthy
    await consumer.stop()


@pytest.mark.parametrize("spec", [STORE_INBOX, OUTBOX], ids=lambda spec: spec.durable)
async def test_each_consumer_may_trim_its_stream(
    broker: Broker, connect_broker: Callable[[str], Awaitable[Broker]], spec: ConsumerSpec
) -> None:
    await send(broker, IN, range(3))
    await send(broker, OUT, range(3))
    await acknowledge(broker, spec, 3)
    clock = Clock()
    user = "message-store" if spec is STORE_INBOX else "xmpp-bridge"
    trimmer = Trimmer(await connect_broker(user), spec, clock)
    await trimmer.trim()
    clock.passes(spec.keep)
    await trimmer.trim()
    assert await first_kept(broker, spec.stream) == 3


async def limit(broker: Broker, stream: StreamName, max_bytes: int) -> None:
    config = (await broker.answered(f"STREAM.INFO.{stream}"))["config"]
    await broker.answered(f"STREAM.UPDATE.{stream}", **{**config, "max_bytes": max_bytes})


async def publish_patiently(broker: Broker, number: int) -> None:
    """Publish as an outbox does: a refusal means later."""
    while True:
        try:
            return await send(broker, IN, [number], size=1_000)
        except BrokerUnavailable:
            await broker.ping()

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from tlim_devstack.streams import inbox_of, newest
from tlim_protocol.identity import delivery_shard
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import BRIDGE_OUTBOXES, ConsumerSpec, StreamName
from tlim_protocol.subjects import Rpc, subject_in, subject_out
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.consumer import BatchConsumer, Incoming, Poison, Verdict
from tlim_runtime.outages import BrokerUnavailable

STORE_INBOX = inbox_of("u:alice:bob")

CONVERSATION = "u:alice:bob"
SUBJECT = subject_in(MsgType.TEXT, CONVERSATION)
ConnectBroker = Callable[[str], Awaitable[Broker]]
Eventually = Callable[[Callable[[], object], str], Awaitable[None]]


async def test_a_message_id_is_stored_once(broker: Broker) -> None:
    first = await broker.publish(SUBJECT, b"one", "id-1")
    second = await broker.publish(SUBJECT, b"one", "id-1")
    assert not first.duplicate
    assert second.duplicate
    assert second.seq == first.seq
    assert await newest(broker, StreamName.IN) == b"one"
    assert (await broker.stream_state(StreamName.IN)).messages == 1


async def test_an_empty_stream_has_no_newest_message(broker: Broker) -> None:
    assert await newest(broker, StreamName.OUT) is None
    assert (await broker.stream_state(StreamName.OUT)).last_seq == 0


async def test_a_stream_that_does_not_exist_is_an_outage(broker: Broker) -> None:
    with pytest.raises(BrokerUnavailable, match="not found"):
        await broker.stream_state("NONE")


async def test_a_subject_without_stream_fails_and_its_neighbours_do_not(broker: Broker) -> None:
    nowhere = broker.publish_soon("tests.nowhere", b"", "id-0")
    impossible = broker.publish_soon("not a subject", b"", "id-1")
    fine = broker.publish_soon(SUBJECT, b"", "id-2")
    with pytest.raises(BrokerUnavailable, match="no stream"):
        await nowhere
    with pytest.raises(BrokerUnavailable):
        await impossible
    assert (await fine).seq == 1


async def test_many_in_flight_keep_their_order(broker: Broker) -> None:
    acks = await asyncio.gather(*(broker.publish_soon(SUBJECT, b"", f"id-{n}") for n in range(1_000)))
    assert [ack.seq for ack in acks] == list(range(1, 1_001))


async def test_the_bound_refuses_what_is_too_much_and_room_waits(broker: Broker) -> None:
    burst = [broker.publish_soon(SUBJECT, b"", f"id-{n}") for n in range(2_001)]
    with pytest.raises(BrokerUnavailable, match="too many"):
        await burst.pop()
    assert broker.pending == 2_000
    await broker.room()
    assert broker.pending < 2_000
    await asyncio.gather(*burst)
    await broker.publish_batch([Outgoing(SUBJECT, b"", f"more-{n}") for n in range(2_500)])
    assert (await broker.stream_state(StreamName.IN)).messages == 4_500


async def test_who_waited_for_room_has_it_however_many_waited(broker: Broker) -> None:
    async def one_more(number: int) -> None:
        await broker.room()
        await broker.publish_soon(SUBJECT, b"", f"more-{number}")

    burst = [broker.publish_soon(SUBJECT, b"", f"id-{n}") for n in range(2_000)]
    await asyncio.gather(*burst, *(one_more(number) for number in range(500)))
    assert (await broker.stream_state(StreamName.IN)).messages == 2_500


async def test_a_request_is_answered_and_a_failing_responder_says_so_at_once(broker: Broker) -> None:
    async def shout(data: bytes) -> bytes:
        if not data:
            raise LookupError
        return data.upper()

    await broker.respond("tests.shout", shout, queue="tests")
    assert await broker.request("tests.shout", b"hello", timeout_s=20) == b"HELLO"
    with pytest.raises(BrokerUnavailable, match="LookupError"):
        await broker.request("tests.shout", b"", timeout_s=20)


async def test_a_request_that_nobody_hears_fails_at_once(broker: Broker) -> None:
    with pytest.raises(BrokerUnavailable, match="NoResponders"):
        await broker.request("tests.nobody", b"", timeout_s=20)


async def test_answers_in_progress_do_not_block_each_other(broker: Broker) -> None:
    gate = asyncio.Event()

    async def answer(data: bytes) -> bytes:
        if data == b"slow":
            await gate.wait()
        else:
            gate.set()
        return data

    await broker.respond("tests.wait", answer, queue="tests")
    slow = asyncio.create_task(broker.request("tests.wait", b"slow", timeout_s=20))
    await asyncio.sleep(0)
    assert await broker.request("tests.wait", b"fast", timeout_s=20) == b"fast"
    assert await slow == b"slow"


@pytest.mark.parametrize(
    ("spec", "subject"),
    [
        (STORE_INBOX, subject_in(MsgType.TEXT, CONVERSATION)),
        (BRIDGE_OUTBOXES[delivery_shard("bob")], subject_out(MsgType.TEXT, "bob")),
    ],
)
async def test_each_service_may_do_all_that_its_consumer_needs(
    broker: Broker, connect_broker: ConnectBroker, eventually: Eventually, spec: ConsumerSpec, subject: str
) -> None:
    service = await connect_broker("message-store" if spec is STORE_INBOX else "xmpp-bridge")
    seen: list[bytes] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        seen.extend(message.data for message in batch)
        return [Poison("a test")] * len(batch)

    consumer = BatchConsumer(service, spec, handle)
    await consumer.start()
    await broker.publish(subject, b"hello", "id-1")
    await eventually(lambda: seen, "it came")
    await consumer.stop()
    assert await newest(broker, StreamName.DEAD) == b"hello"


async def test_the_store_may_ask_how_far_its_stream_is(broker: Broker, connect_broker: ConnectBroker) -> None:
    await broker.publish(subject_out(MsgType.TEXT, "bob"), b"last", "id-1")
    store = await connect_broker("message-store")
    assert (await store.stream_state(StreamName.OUT)).last_seq == 1
    assert await newest(store, StreamName.OUT) == b"last"


async def test_a_service_cannot_publish_for_another(broker: Broker, connect_broker: ConnectBroker) -> None:
    bridge = await connect_broker("xmpp-bridge")
    forged = bridge.publish_soon(subject_out(MsgType.TEXT, "bob"), b"", "id-1")
    with pytest.raises(BrokerUnavailable):
        await forged
    assert (await broker.stream_state(StreamName.OUT)).messages == 0


async def test_services_ask_and_answer_each_other(broker: Broker, connect_broker: ConnectBroker) -> None:
    del broker

    async def answer(data: bytes) -> bytes:
        return data[::-1]

    sessions = await connect_broker("session-api")
    await sessions.respond(Rpc.USER_MEET, answer, queue="session-api")
    store = await connect_broker("message-store")
    assert await store.request(Rpc.USER_MEET, b"abc", timeout_s=10) == b"cba"

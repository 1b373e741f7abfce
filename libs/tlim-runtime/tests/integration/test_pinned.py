"""A new session of a consumer gets everything at once and in order, although an earlier one still has open requests."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from nats.aio.msg import Msg
from tlim_devstack.restartable import RestartableNats
from tlim_devstack.streams import inbox_of
from tlim_protocol.identity import delivery_shard
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import BRIDGE_OUTBOXES, ConsumerSpec
from tlim_protocol.subjects import subject_in, subject_out
from tlim_runtime import pull
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.consumer import DONE, BatchConsumer, Incoming, Verdict
from tlim_runtime.pull import UNTOUCHED, Begun, PullError, PullSession

STORE_INBOX = inbox_of("u:ada:bob")

OUTBOX = BRIDGE_OUTBOXES[delivery_shard("bob")]
SUBJECTS = {OUTBOX.stream: subject_out(MsgType.TEXT, "bob"), STORE_INBOX.stream: subject_in(MsgType.TEXT, "u:ada:bob")}
PATIENCE_S = 30
both = pytest.mark.parametrize("spec", [OUTBOX, STORE_INBOX], ids=["pinned", "alone"])


async def send(broker: Broker, numbers: Sequence[int], spec: ConsumerSpec = OUTBOX) -> None:
    subject = SUBJECTS[spec.stream]
    await broker.publish_batch([Outgoing(subject, str(number).encode(), f"id-{number}") for number in numbers])


async def open_session(broker: Broker, spec: ConsumerSpec = OUTBOX, batch: int = 100) -> PullSession:
    session = PullSession(broker, spec, batch)
    await session.open()
    await session.begin()
    return session


async def request_waits(broker: Broker, spec: ConsumerSpec) -> None:
    """Return when the server has a request: it queues them, and answers questions about the consumer meanwhile."""
    async with asyncio.timeout(PATIENCE_S):
        while not (await broker.answered(f"CONSUMER.INFO.{spec.stream}.{spec.durable}"))["num_waiting"]:
            pass


async def take(session: PullSession, count: int) -> list[int]:
    """Take and acknowledge that many messages, or fail for want of them."""
    taken: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(taken) < count:
            for delivery in await session.take():
                await session.acknowledge(delivery)
                taken.append(int(delivery.data))
    return taken


async def test_a_new_session_gets_everything_although_an_earlier_one_hangs_with_open_requests(broker: Broker) -> None:
    """Nobody reads what comes for the first one, as in a process that is stopped and not dead."""
    earlier = await open_session(broker)
    await send(broker, range(5))
    assert await take(earlier, 5) == list(range(5))
    later = await open_session(broker)
    await send(broker, range(5, 200))
    assert await take(later, 195) == list(range(5, 200))
    with pytest.raises(PullError, match="423"):
        await earlier.take()
    await send(broker, range(200, 210))
    assert await take(later, 10) == list(range(200, 210))
    await later.release()
    await earlier.release()


@both
async def test_an_earlier_session_that_was_never_given_anything_swallows_nothing_either(
    broker: Broker, spec: ConsumerSpec
) -> None:
    stopped = await open_session(broker, spec)
    await request_waits(broker, spec)
    stopped.give_up("the process hangs")  # it does not ask again
    later = await open_session(broker, spec)
    await send(broker, range(20), spec)
    assert await take(later, 20) == list(range(20))
    await later.release()
    await stopped.release()


@both
async def test_what_the_earlier_session_had_not_acknowledged_comes_first(broker: Broker, spec: ConsumerSpec) -> None:
    earlier = await open_session(broker, spec)
    await send(broker, range(10), spec)
    async with asyncio.timeout(PATIENCE_S):
        held = await earlier.take()
    await earlier.acknowledge(held[0])
    await earlier.release()
    later = await open_session(broker, spec)
    await send(broker, range(10, 20), spec)
    assert await take(later, 19) == list(range(1, 20))
    await later.release()


@both
async def test_a_session_begins_at_its_reset_whatever_the_server_says_that_it_has_delivered(
    broker: Broker, spec: ConsumerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is just writing the state of the consumer answers a reset to the beginning with the old state."""
    ask = broker.api

    async def stale(operation: str, **arguments: object) -> dict[str, Any]:
        answer = await ask(operation, **arguments)
        if operation.startswith("CONSUMER.RESET."):
            answer["delivered"] = {"consumer_seq": 1, "stream_seq": 1}
        return answer

    monkeypatch.setattr(broker, "api", stale)
    await send(broker, range(5), spec)
    session = await open_session(broker, spec)
    assert await take(session, 5) == list(range(5))
    await session.release()


@both
async def test_a_session_that_got_nothing_hands_on_what_is_delivered_again(broker: Broker, spec: ConsumerSpec) -> None:
    await send(broker, range(3), spec)
    session = await open_session(broker, spec)
    (first, _, last) = await session.take()
    await session.acknowledge(first)
    await session.release()
    begun = UNTOUCHED
    for _ in range(2):
        session = PullSession(broker, spec, batch=100)
        begun = await session.open(before=begun)
        assert begun == Begun(delivered=last.stream_seq, floor=first.stream_seq)
        await session.release()
    session = await open_session(broker, spec)
    assert await take(session, 2) == [1, 2]
    await session.release()
    session = PullSession(broker, spec, batch=100)
    assert (await session.open(before=begun)).delivered == 0, "all of it is acknowledged"
    await session.release()


@both
async def test_a_session_whose_first_message_went_to_somebody_else_takes_nothing_that_is_newer(
    broker: Broker, spec: ConsumerSpec
) -> None:
    session = PullSession(broker, spec, batch=100)
    await session.open()
    stolen: asyncio.Queue[bytes] = asyncio.Queue()

    async def steal(message: Msg) -> None:
        stolen.put_nowait(message.data)

    inbox = broker.new_inbox()
    thief = await broker.subscribe(inbox, steal)
    asked = {"batch": 1, "expires": 20_000_000_000, **({} if spec.group is None else {"group": spec.group})}
    await broker.send(f"$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.durable}", json.dumps(asked).encode(), inbox)
    await send(broker, range(1), spec)
    assert await stolen.get() == b"0"
    await broker.unsubscribe(thief)
    if spec.group is not None:
        await broker.answered(f"CONSUMER.UNPIN.{spec.stream}.{spec.durable}", group=spec.group)
    await session.begin()
    await send(broker, range(1, 5), spec)
    with pytest.raises(PullError, match="delivery 1 is missing"):
        async with asyncio.timeout(PATIENCE_S):
            await session.take()
    await session.release()
    later = await open_session(broker, spec)
    assert await take(later, 5) == list(range(5))
    await later.release()


async def test_a_session_whose_handler_takes_long_goes_on_asking_and_keeps_its_pin(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "STALL_S", 0.1)
    monkeypatch.setattr(pull, "PINNED_S", 2 * pull.HEARTBEAT_S)  # the server takes no less
    session = await open_session(broker, batch=2)
    await send(broker, range(20))
    async with asyncio.timeout(PATIENCE_S):
        first = await session.take()
        delivered = 0
        while delivered < 5:  # two in the handler, two that wait, and one more
            info = await broker.answered(f"CONSUMER.INFO.{OUTBOX.stream}.{OUTBOX.durable}")
            delivered = info["delivered"]["stream_seq"]
    for delivery in first:
        await session.acknowledge(delivery)
    assert await take(session, 20 - len(first)) == list(range(len(first), 20))
    await session.release()


async def test_a_pinned_consumer_goes_on_after_nats_was_restarted(
    restartable_broker: Broker, restartable_nats: RestartableNats, eventually: Any, surely: Any
) -> None:
    handled: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.extend(int(message.data) for message in batch)
        return [DONE] * len(batch)

    consumer = BatchConsumer(restartable_broker, OUTBOX, handle, batch=20)
    await consumer.start()
    for start in (0, 100, 200):
        await surely(partial(send, restartable_broker, range(start, start + 100)))
        await eventually(lambda start=start: handled and handled[-1] == start + 99, "all are handled")
        await asyncio.to_thread(restartable_nats.kill)
        await asyncio.to_thread(restartable_nats.start)
        await eventually(lambda: restartable_broker.is_connected, "the connection is back")
    assert list(dict.fromkeys(handled)) == list(range(300))
    await consumer.stop()

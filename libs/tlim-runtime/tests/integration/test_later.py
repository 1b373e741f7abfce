"""A message that takes long does not hold up the others, and is not lost either."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
import pytest_asyncio
from tlim_devstack.streams import inbox_of, newest
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import subject_in
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.consumer import DONE, BatchConsumer, Incoming, Later, Poison, Verdict
from tlim_runtime.outages import Unavailable

STORE_INBOX = inbox_of("u:alice:bob")

Eventually = Callable[[Callable[[], object], str], Awaitable[None]]
SLOW = 3
LAST = 9


class Handler:
    """Keeps message 3 for later, each time that it comes, and is done with all others at once."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.slow: list[asyncio.Future[Verdict]] = []

    async def __call__(self, batch: Sequence[Incoming]) -> Sequence[Verdict | Later]:
        return [self._handle(int(message.data)) for message in batch]

    def _handle(self, number: int) -> Verdict | Later:
        if number != SLOW:
            self.handled.append(number)
            return DONE
        self.slow.append(asyncio.get_running_loop().create_future())
        return Later(self.slow[-1])


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest_asyncio.fixture
async def consumer(broker: Broker, handler: Handler, eventually: Eventually) -> BatchConsumer:
    subject = subject_in(MsgType.TEXT, "u:alice:bob")
    await broker.publish_batch([Outgoing(subject, str(n).encode(), f"id-{n}") for n in range(LAST + 1)])
    consumer = BatchConsumer(broker, STORE_INBOX, handler)
    await consumer.start()
    await eventually(lambda: LAST in handler.handled, "the others went on")
    return consumer


async def ack_floor(broker: Broker) -> int:
    info = await broker.answered(f"CONSUMER.INFO.{STORE_INBOX.stream}.{STORE_INBOX.durable}")
    return int(info["ack_floor"]["stream_seq"])


async def test_it_is_acknowledged_when_it_is_done(broker: Broker, consumer: BatchConsumer, handler: Handler) -> None:
    assert await ack_floor(broker) <= SLOW
    handler.slow[0].set_result(DONE)
    await consumer.stop()
    assert await ack_floor(broker) == LAST + 1
    assert len(handler.slow) == 1


async def test_poison_that_is_found_late_is_buried(broker: Broker, consumer: BatchConsumer, handler: Handler) -> None:
    handler.slow[0].set_result(Poison("no end of it"))
    await consumer.stop()
    assert await ack_floor(broker) == LAST + 1
    assert await newest(broker, StreamName.DEAD) == str(SLOW).encode()


async def test_it_comes_again_after_a_failure_and_so_does_what_overtook_it(
    consumer: BatchConsumer, handler: Handler, eventually: Eventually
) -> None:
    handler.slow[0].set_exception(Unavailable("the XMPP server is away"))
    await eventually(lambda: len(handler.slow) > 1, "it came again")
    handler.slow[1].set_result(DONE)
    await eventually(lambda: handler.handled.count(LAST) > 1, "what came behind it was delivered again")
    await consumer.stop()


async def test_it_is_given_up_when_delivery_starts_anew_for_another_reason(
    consumer: BatchConsumer, handler: Handler, eventually: Eventually
) -> None:
    consumer.go_back(1)
    await eventually(lambda: len(handler.slow) > 1, "it came again")
    assert handler.slow[0].cancelled()
    handler.slow[1].set_result(DONE)
    await consumer.stop()


@pytest.mark.parametrize("rounds", range(8))
async def test_an_abort_right_after_a_failure_leaves_no_session_behind(
    consumer: BatchConsumer, handler: Handler, rounds: int
) -> None:
    handler.slow[0].set_exception(Unavailable("the XMPP connection was lost"))
    for _ in range(rounds):
        await asyncio.sleep(0)
    await consumer.abort()
    assert [task.get_name() for task in asyncio.all_tasks() if "watch of" in task.get_name()] == []


async def test_a_stop_waits_for_it(consumer: BatchConsumer, handler: Handler) -> None:
    stopping = asyncio.ensure_future(consumer.stop())
    asyncio.get_running_loop().call_later(0.1, handler.slow[0].set_result, DONE)
    await stopping
    assert handler.slow[0].result() == DONE


async def test_a_process_that_may_not_consume_any_more_acknowledges_nothing(
    broker: Broker, handler: Handler, eventually: Eventually
) -> None:
    is_allowed = True

    def check() -> None:
        if not is_allowed:
            raise Unavailable("another process consumes")

    subject = subject_in(MsgType.TEXT, "u:alice:bob")
    consumer = BatchConsumer(broker, STORE_INBOX, handler, check=check)
    await consumer.start()
    await broker.publish_batch([Outgoing(subject, str(SLOW).encode(), "id")])
    await eventually(lambda: handler.slow, "the message came")
    is_allowed = False
    handler.slow[0].set_result(DONE)
    await eventually(lambda: not consumer.healthy, "it stopped consuming")
    assert await ack_floor(broker) == 0
    await consumer.stop()

"""A batch, and what waits behind it, have a bound in what they weigh; a single message may be larger."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from tlim_devstack.streams import inbox_of
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_in
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.consumer import DONE, BatchConsumer, Incoming, Verdict

STORE_INBOX = inbox_of("u:alice:bob")

SUBJECT = subject_in(MsgType.TEXT, "u:alice:bob")
Eventually = Callable[[Callable[[], object], str], Awaitable[None]]


async def test_large_messages_come_in_order_in_batches_of_no_more_bytes_than_fit(
    broker: Broker, eventually: Eventually
) -> None:
    sizes: list[list[int]] = []
    starts = 0

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        sizes.append([len(message.data) for message in batch])
        return [DONE] * len(batch)

    async def prepare() -> None:
        nonlocal starts
        starts += 1

    sent = [number * 7_919 % 60_000 for number in range(300)]
    await broker.publish_batch([Outgoing(SUBJECT, b"x" * size, f"id-{n}") for n, size in enumerate(sent)])
    consumer = BatchConsumer(broker, STORE_INBOX, handle, most=100_000, prepare=prepare)
    await consumer.start()
    await eventually(lambda: sum(map(len, sizes)) >= len(sent), "all were handled")
    await consumer.stop()
    assert [size for batch in sizes for size in batch] == sent
    assert max(map(sum, sizes)) <= 100_000
    assert starts == 1


async def test_a_batch_has_no_more_than_fits_as_its_messages_are_weighed(
    broker: Broker, eventually: Eventually
) -> None:
    sizes: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        sizes.append(len(batch))
        return [DONE] * len(batch)

    await broker.publish_batch([Outgoing(SUBJECT, b"x", f"id-{number}") for number in range(100)])
    consumer = BatchConsumer(broker, STORE_INBOX, handle, most=100_000, weigh=lambda _data: 30_000)
    await consumer.start()
    await eventually(lambda: sum(sizes) == 100, "all were handled")
    await consumer.stop()
    assert max(sizes) <= 3


async def test_behind_a_slow_handler_no_more_waits_than_fits(broker: Broker, eventually: Eventually) -> None:
    gate = asyncio.Event()
    handled: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.append(len(batch))
        await gate.wait()
        return [DONE] * len(batch)

    async def outstanding() -> tuple[int, int]:
        info = await broker.answered(f"CONSUMER.INFO.{STORE_INBOX.stream}.{STORE_INBOX.durable}")
        return info["num_ack_pending"], info["num_waiting"]

    consumer = BatchConsumer(broker, STORE_INBOX, handle, most=100_000)
    await consumer.start()
    await broker.publish_batch([Outgoing(SUBJECT, b"x" * 9_000, f"id-{number}") for number in range(40)])
    await eventually(lambda: handled, "the handler is busy")
    counts = [await outstanding()]
    while (
        len(counts) < 2 or counts[-1] != counts[-2] or counts[-1][1] or counts[-1][0] <= handled[0]
    ):  # until no request is open any more
        await asyncio.sleep(0.05)
        counts.append(await outstanding())
    assert 0 < (counts[-1][0] - handled[0]) * 9_000 <= 100_000
    gate.set()
    await eventually(lambda: sum(handled) == 40, "all were handled")
    await consumer.stop()


async def test_the_largest_message_that_the_server_takes_is_delivered(broker: Broker, eventually: Eventually) -> None:
    sizes: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        sizes.extend(len(message.data) for message in batch)
        return [DONE] * len(batch)

    largest = 8 * 1024**2 - 1_000  # deploy/nats/nats.conf; headers count
    for number in range(5):  # one after the other: each has a time-out for itself
        await broker.publish(SUBJECT, b"x" * largest, f"id-{number}")
    consumer = BatchConsumer(broker, STORE_INBOX, handle)
    await consumer.start()
    await eventually(lambda: len(sizes) == 5, "all were handled")
    assert sizes == [largest] * 5
    assert consumer.healthy
    await consumer.stop()


async def test_a_message_that_is_larger_than_any_request_is_asked_for_alone(
    broker: Broker, eventually: Eventually
) -> None:
    sizes: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        sizes.extend(len(message.data) for message in batch)
        return [DONE] * len(batch)

    await broker.publish_batch([Outgoing(SUBJECT, b"x" * size, f"id-{size}") for size in (10, 50_000, 20)])
    consumer = BatchConsumer(broker, STORE_INBOX, handle, most=1_000)
    await consumer.start()
    await eventually(lambda: len(sizes) == 3, "all were handled")
    await consumer.stop()
    assert sizes == [10, 50_000, 20]

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

import pytest
from structlog.testing import capture_logs
from tlim_devstack.clock import Clock
from tlim_devstack.streams import inbox_of, newest
from tlim_protocol.dead_letters import DeadCause
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import ConsumerSpec, StreamName
from tlim_protocol.subjects import subject_in
from tlim_runtime import pull, pulse
from tlim_runtime.background import stuck
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.consumer import DONE, BatchConsumer, Incoming, Poison, Verdict
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import DatabaseUnavailable
from tlim_runtime.tracing import TRACEPARENT

STORE_INBOX = inbox_of("u:alice:bob")

SUBJECT = subject_in(MsgType.TEXT, "u:alice:bob")
Eventually = Callable[[Callable[[], object], str], Awaitable[None]]
MakeConsumer = Callable[[ConsumerSpec], Awaitable[None]]


class Recorder:
    """A handler that notes what it got and fails, or finds poison, where it is told to."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.batches: list[int] = []
        self.failures: dict[int, int] = {}
        self.poison: set[int] = set()
        self.hold_at: int | None = None
        self.is_holding = False
        self.gate = asyncio.Event()

    def has_seen(self, number: int) -> bool:
        return number in self.handled

    async def __call__(self, batch: Sequence[Incoming]) -> Sequence[Verdict]:
        numbers = [int(message.data) for message in batch]
        if self.hold_at in numbers:
            self.is_holding = True
            await self.gate.wait()
        for number in numbers:
            if self.failures.get(number):
                self.failures[number] -= 1
                raise DatabaseUnavailable("the database is away")
        self.handled += numbers
        self.batches.append(len(numbers))
        return [Poison("not a message") if number in self.poison else DONE for number in numbers]


def messages(numbers: Sequence[int]) -> list[Outgoing]:
    return [Outgoing(SUBJECT, str(number).encode(), f"id-{number}") for number in numbers]


async def test_messages_arrive_once_and_in_order(broker: Broker, eventually: Eventually) -> None:
    handler = Recorder()
    consumer = BatchConsumer(broker, STORE_INBOX, handler, batch=50)
    await consumer.start()
    await broker.publish_batch(messages(range(1_000)))
    await eventually(lambda: len(handler.handled) >= 1_000, "all were handled")
    assert handler.handled == list(range(1_000))
    assert max(handler.batches) <= 50
    assert consumer.healthy
    await consumer.stop()


async def test_a_message_is_handled_without_waiting_for_a_batch_to_fill(broker: Broker, eventually: Eventually) -> None:
    handler = Recorder()
    consumer = BatchConsumer(broker, STORE_INBOX, handler)
    await consumer.start()
    for number in range(5):
        await broker.publish_batch(messages([number]))
        await eventually(partial(handler.has_seen, number), f"{number} was handled alone")
    assert handler.batches == [1] * 5
    await consumer.stop()


async def test_order_survives_a_transient_failure_and_readiness_tells_it(
    broker: Broker, eventually: Eventually
) -> None:
    handler = Recorder()
    handler.failures = {30: 2, 77: 1}
    consumer = BatchConsumer(broker, STORE_INBOX, handler, batch=10)
    await broker.publish_batch(messages(range(100)))
    await consumer.start()
    await eventually(lambda: handler.failures[30] == 1, "the first failure")
    await eventually(lambda: not consumer.healthy, "readiness is red")
    assert consumer.reason == "the database is away"
    await eventually(lambda: len(handler.handled) >= 100, "all were handled")
    assert handler.handled == list(range(100))
    await eventually(lambda: consumer.healthy, "readiness is green again")
    await consumer.stop()


async def test_readiness_waits_for_no_batch_that_nats_has_lost(broker: Broker, eventually: Eventually) -> None:
    handler = Recorder()
    handler.failures = {1: 1_000_000}
    consumer = BatchConsumer(broker, STORE_INBOX, handler)
    await broker.publish_batch(messages([1]))
    await consumer.start()
    await eventually(lambda: consumer.reason == "the database is away", "the batch failed")
    await broker.answered(f"STREAM.PURGE.{StreamName.IN}")
    await eventually(lambda: consumer.healthy, "readiness is green again")
    await consumer.stop()


async def test_what_was_acknowledged_comes_again_from_where_delivery_goes_back_to(
    broker: Broker, eventually: Eventually
) -> None:
    handler = Recorder()
    consumer = BatchConsumer(broker, STORE_INBOX, handler, batch=10)
    await broker.publish_batch(messages(range(100)))
    await consumer.start()
    await eventually(lambda: len(handler.handled) >= 100, "all were handled")
    first = (await broker.stream_state(StreamName.IN)).first_seq

    consumer.go_back(first + 90)
    consumer.go_back(first + 70)
    consumer.go_back(first + 80)
    await broker.publish_batch(messages(range(100, 105)))

    await eventually(lambda: len(handler.handled) >= 135, "they were handled again, and what is new")
    assert handler.handled[100:] == list(range(70, 105))
    await consumer.stop()
    after = Recorder()
    consumer = BatchConsumer(broker, STORE_INBOX, after)
    await consumer.start()
    await broker.publish_batch(messages([105]))
    await eventually(lambda: after.has_seen(105), "the next was handled")
    assert after.handled == [105], "all before is acknowledged"
    await consumer.stop()


async def test_what_is_in_hand_comes_again_behind_what_delivery_goes_back_to(
    broker: Broker, eventually: Eventually
) -> None:
    handler = Recorder()
    handler.hold_at = 30
    consumer = BatchConsumer(broker, STORE_INBOX, handler, batch=10)
    await broker.publish_batch(messages(range(40)))
    await consumer.start()
    await eventually(lambda: handler.is_holding, "a batch is in hand")
    first = (await broker.stream_state(StreamName.IN)).first_seq

    consumer.go_back(first + 15)  # a batch of 10 with 30 in it begins behind that
    handler.gate.set()

    await eventually(lambda: handler.handled.count(15) == 2 and handler.handled[-1] == 39, "they were handled again")
    once, again = handler.handled[:-25], handler.handled[-25:]
    assert again == list(range(15, 40))
    assert once == list(range(len(once)))
    assert 30 in once
    await eventually(lambda: consumer.healthy, "readiness is green again")
    await consumer.stop()


async def test_delivery_never_goes_forward(broker: Broker, eventually: Eventually) -> None:
    handler = Recorder()
    consumer = BatchConsumer(broker, STORE_INBOX, handler)
    await broker.publish_batch(messages(range(10)))
    await consumer.start()
    await eventually(lambda: len(handler.handled) >= 10, "all were handled")

    consumer.go_back((await broker.stream_state(StreamName.IN)).last_seq + 1_000)
    await broker.publish_batch(messages([10]))

    await eventually(lambda: handler.has_seen(10), "the next was handled")
    assert handler.handled == list(range(11))
    await consumer.stop()


async def test_poison_is_copied_with_its_reason_and_its_neighbours_pass(broker: Broker, eventually: Eventually) -> None:
    handler = Recorder()
    handler.poison = {3}
    metrics = Metrics()
    consumer = BatchConsumer(broker, STORE_INBOX, handler, metrics=metrics)
    await broker.publish_batch(messages(range(6)))
    await consumer.start()
    await eventually(lambda: len(handler.handled) == 6, "all were looked at")
    await consumer.stop()
    assert await newest(broker, StreamName.DEAD) == b"3"
    assert (await broker.stream_state(StreamName.DEAD)).messages == 1
    headers = await _last_dead_headers(broker)
    assert "Tlim-Reason: not a message" in headers
    assert "Tlim-Cause: unreadable" in headers
    assert f"Tlim-Subject: {SUBJECT}" in headers
    counted = {"consumer": STORE_INBOX.durable, "cause": DeadCause.UNREADABLE}
    assert metrics.registry.get_sample_value("tlim_dead_letters_total", counted) == 1

    again = Recorder()
    resumed = BatchConsumer(broker, STORE_INBOX, again)
    await resumed.start()
    await broker.publish_batch(messages([6]))
    await eventually(lambda: again.handled, "the next one came")
    assert again.handled == [6]
    await resumed.stop()


async def test_a_full_dead_letter_stream_stops_nobody(broker: Broker, eventually: Eventually) -> None:
    config = (await broker.api(f"STREAM.INFO.{StreamName.DEAD}"))["config"]
    await broker.api(f"STREAM.UPDATE.{StreamName.DEAD}", **{**config, "max_bytes": 1_000})
    handler = Recorder()
    handler.poison = set(range(30))
    consumer = BatchConsumer(broker, STORE_INBOX, handler)
    await broker.publish_batch(messages(range(31)))
    await consumer.start()
    await eventually(lambda: handler.has_seen(30) and consumer.healthy, "all were looked at")
    await consumer.stop()
    assert handler.handled == list(range(31))
    assert await newest(broker, StreamName.DEAD) == b"29"
    assert (await broker.stream_state(StreamName.DEAD)).messages < 30


async def _last_dead_headers(broker: Broker) -> str:
    answer = await broker.api(f"STREAM.MSG.GET.{StreamName.DEAD}", seq=1)
    return base64.b64decode(answer["message"]["hdrs"]).decode()


async def test_a_consumer_that_was_cut_off_in_a_batch_is_followed_in_order(
    broker: Broker, eventually: Eventually
) -> None:
    first = Recorder()
    consumer = BatchConsumer(broker, STORE_INBOX, first, batch=10)
    first.hold_at = 25
    await broker.publish_batch(messages(range(100)))
    await consumer.start()
    await eventually(lambda: first.is_holding, "a batch is in hand")
    await consumer.abort()
    assert not consumer.healthy
    second = Recorder()
    follower = BatchConsumer(broker, STORE_INBOX, second, batch=10)
    await follower.start()
    await eventually(lambda: second.handled[-1:] == [99], "the rest was handled")
    assert second.handled == list(range(len(first.handled), 100))
    await follower.stop()


async def test_stop_finishes_the_batch_in_hand(broker: Broker, eventually: Eventually) -> None:
    handler = Recorder()
    handler.hold_at = 12
    consumer = BatchConsumer(broker, STORE_INBOX, handler, batch=10)
    await broker.publish_batch(messages(range(30)))
    await consumer.start()
    await eventually(lambda: handler.is_holding, "a batch is in hand")
    stopping = asyncio.create_task(consumer.stop())
    handler.gate.set()
    await stopping
    count = len(handler.handled)
    assert count > 12
    assert handler.handled == list(range(count))
    follower_handler = Recorder()
    follower = BatchConsumer(broker, STORE_INBOX, follower_handler)
    await follower.start()
    await eventually(lambda: follower_handler.handled[-1:] == [29], "the rest came")
    assert follower_handler.handled == list(range(count, 30))
    await follower.stop()


async def test_a_slow_handler_keeps_its_messages(
    broker: Broker, make_consumer: MakeConsumer, eventually: Eventually
) -> None:
    spec = STORE_INBOX._replace(durable=STORE_INBOX.durable + "-hurried", ack_wait=timedelta(seconds=9))
    await make_consumer(spec)
    handler = Recorder()
    handler.hold_at = 0
    consumer = BatchConsumer(broker, spec, handler, batch=5)
    await broker.publish_batch(messages(range(20)))
    await consumer.start()
    long_enough = asyncio.get_running_loop().time() + 10  # over ack_wait: in silence the server would deliver again
    await eventually(lambda: asyncio.get_running_loop().time() > long_enough, "the handler is slow")
    handler.gate.set()
    await eventually(lambda: len(handler.handled) >= 20, "all were handled")
    assert handler.handled == list(range(20))
    info = await broker.api(f"CONSUMER.INFO.{spec.stream}.{spec.durable}")
    assert info["num_redelivered"] == 0
    await consumer.stop()


async def test_prepare_runs_before_the_first_message_and_again_after_a_failure(
    broker: Broker, eventually: Eventually
) -> None:
    handler = Recorder()
    handler.failures = {1: 1}
    story: list[str] = []

    async def prepare() -> None:
        story.append(f"prepared at {len(handler.handled)}")

    consumer = BatchConsumer(broker, STORE_INBOX, handler, batch=1, prepare=prepare)
    await broker.publish_batch(messages(range(3)))
    await consumer.start()
    await eventually(lambda: len(handler.handled) == 3, "all were handled")
    assert story == ["prepared at 0", "prepared at 1"]
    await consumer.stop()


async def test_a_failing_prepare_is_reported_and_repeated(broker: Broker, eventually: Eventually) -> None:
    handler = Recorder()
    failures = [DatabaseUnavailable("not yet"), DatabaseUnavailable("not yet")]

    async def prepare() -> None:
        if failures:
            raise failures.pop()

    consumer = BatchConsumer(broker, STORE_INBOX, handler, prepare=prepare)
    await consumer.start()
    with pytest.raises(Exception, match=r"starting|not yet"):
        await consumer.ping()
    await eventually(lambda: consumer.healthy, "it runs at last")
    await consumer.stop()


async def test_a_batch_on_which_the_handler_fails_is_logged_with_its_messages_and_their_traces(
    broker: Broker, eventually: Eventually
) -> None:
    mistakes = [RuntimeError("a mistake of ours")]
    passed: list[str] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        if mistakes:
            raise mistakes.pop()
        passed.extend(one.subject for one in batch)
        return [DONE for _ in batch]

    headers = {TRACEPARENT: f"00-{'4b' * 16}-{'0a' * 8}-01"}
    await broker.publish(SUBJECT, b'{"msg_id": "m1"}', "id-1", headers)
    consumer = BatchConsumer(broker, STORE_INBOX, handle)
    with capture_logs() as lines:
        await consumer.start()
        await eventually(lambda: passed and consumer.healthy, "the batch passed")
    await consumer.stop()
    (line,) = (line for line in lines if line["event"] == "the handler of a batch failed")
    assert (line["msg_ids"], line["trace_ids"]) == (["m1"], ["4b" * 16])


@pytest.mark.parametrize("verdicts", [0, 2])
async def test_a_wrong_number_of_verdicts_acknowledges_nothing(
    broker: Broker, eventually: Eventually, verdicts: int
) -> None:
    calls = 0

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        nonlocal calls
        calls += 1
        return [DONE] * (verdicts if calls == 1 else len(batch))

    consumer = BatchConsumer(broker, STORE_INBOX, handle)
    await broker.publish_batch(messages([1]))
    await consumer.start()
    await eventually(lambda: calls == 2, "it came again")
    await consumer.stop()


async def test_delivery_that_stalls_is_started_anew(
    broker: Broker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "STALL_S", 0.1)
    handler = Recorder()
    consumer = BatchConsumer(broker, STORE_INBOX, handler)
    pause = f"CONSUMER.PAUSE.{STORE_INBOX.stream}.{STORE_INBOX.durable}"
    await broker.api(pause, pause_until="2999-01-01T00:00:00Z")
    await broker.publish_batch(messages([1]))
    await consumer.start()
    await eventually(lambda: "not delivered" in consumer.reason, "readiness tells of the stall")
    await broker.api(pause)
    await eventually(lambda: handler.handled == [1], "it is delivered after all")
    await consumer.stop()


async def test_a_first_preparation_that_hangs_asks_for_a_new_process(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, begins = Clock(), asyncio.Event()
    monkeypatch.setattr(pulse, "time", clock)

    async def hang() -> None:
        begins.set()
        await asyncio.Event().wait()

    consumer = BatchConsumer(broker, STORE_INBOX, Recorder(), prepare=hang)
    await consumer.start()
    await begins.wait()
    clock.now += 2 * pulse.HUNG_S
    assert f"consumer {STORE_INBOX.durable}: it hangs since 600 s" in stuck()
    await consumer.abort()

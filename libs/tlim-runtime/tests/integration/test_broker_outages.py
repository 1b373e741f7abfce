import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from typing import Protocol

import pytest
from tlim_devstack.streams import inbox_of
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import subject_in
from tlim_runtime import pull
from tlim_runtime.broker import Broker, Outgoing
from tlim_runtime.consumer import DONE, BatchConsumer, Incoming, Verdict
from tlim_runtime.outages import BrokerUnavailable

STORE_INBOX = inbox_of("u:alice:bob")

SUBJECT = subject_in(MsgType.TEXT, "u:alice:bob")
Eventually = Callable[[Callable[[], object], str], Awaitable[None]]


class Restartable(Protocol):
    passwords: dict[str, str]

    def reload(self, passwords: dict[str, str]) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


async def publish_surely(broker: Broker, number: int) -> None:
    while True:
        try:
            await broker.publish(SUBJECT, str(number).encode(), f"id-{number}")
        except BrokerUnavailable:
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_messages_flow_on_in_order_after_a_restart_of_the_server(
    restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually, end: str
) -> None:
    handled: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.extend(int(message.data) for message in batch)
        await asyncio.sleep(0)
        return [DONE] * len(batch)

    consumer = BatchConsumer(restartable_broker, STORE_INBOX, handle, batch=20)
    await consumer.start()

    async def produce() -> None:
        for number in range(600):
            await publish_surely(restartable_broker, number)

    producing = asyncio.create_task(produce())
    await eventually(lambda: len(handled) > 200, "messages flow")
    await asyncio.to_thread(getattr(restartable_nats, end))
    await eventually(lambda: not consumer.healthy, "readiness is red")
    await asyncio.to_thread(restartable_nats.start)
    await producing
    await eventually(lambda: handled[-1:] == [599], "the last one was handled")
    first_times = list(dict.fromkeys(handled))
    assert first_times == list(range(600))
    await eventually(lambda: consumer.healthy, "readiness is green")
    await consumer.stop()


async def test_publishing_fails_at_once_while_the_server_is_away_and_works_after(
    restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually
) -> None:
    reconnected: list[str] = []

    async def note() -> None:
        reconnected.append("yes")

    restartable_broker.on_reconnect(note)
    await asyncio.to_thread(restartable_nats.kill)
    await eventually(lambda: not restartable_broker.is_connected, "the loss was noticed")
    with pytest.raises(BrokerUnavailable):
        await restartable_broker.publish(SUBJECT, b"1", "id-1")
    with pytest.raises(BrokerUnavailable):
        await restartable_broker.request(SUBJECT, b"")
    with pytest.raises(BrokerUnavailable):
        await restartable_broker.ping()
    await asyncio.to_thread(restartable_nats.start)
    await eventually(lambda: reconnected, "it came back")
    ack = await restartable_broker.publish(SUBJECT, b"1", "id-1")
    assert not ack.duplicate


async def test_what_was_in_flight_is_failed_and_never_sent_behind_a_gap(
    restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually
) -> None:
    def publish_all() -> list[asyncio.Future[object]]:
        return [restartable_broker.publish_soon(SUBJECT, b"x" * 50_000, f"id-{n}") for n in range(300)]  # type: ignore[misc]

    waiting = publish_all()
    await asyncio.to_thread(restartable_nats.kill)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(result, BrokerUnavailable) for result in results)
    assert restartable_broker.pending == 0
    await asyncio.to_thread(restartable_nats.start)
    await eventually(lambda: restartable_broker.is_connected, "it came back")
    await restartable_broker.publish_batch([Outgoing(SUBJECT, b"x", f"id-{n}") for n in range(300)])
    state = await restartable_broker.stream_state(StreamName.IN)
    ids = [await _message_id(restartable_broker, seq) for seq in range(1, state.last_seq + 1)]
    assert ids == [f"id-{n}" for n in range(300)]


async def _message_id(broker: Broker, seq: int) -> str:
    answer = await broker.api(f"STREAM.MSG.GET.{StreamName.IN}", seq=seq)
    headers = base64.b64decode(answer["message"]["hdrs"]).decode()
    return next(line.split(": ")[1] for line in headers.splitlines() if line.startswith("Nats-Msg-Id"))


async def test_a_connection_that_the_server_ended_for_good_is_opened_again(
    restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually
) -> None:
    async def echo(data: bytes) -> bytes:
        return data

    await restartable_broker.respond("tests.echo", echo, "tests")
    right = dict(restartable_nats.passwords)
    restartable_nats.reload(dict.fromkeys(right, "changed"))  # a reload ends connections whose password has changed
    await eventually(lambda: not restartable_broker.is_connected, "the server sent us away")
    restartable_nats.reload(right)
    await eventually(lambda: restartable_broker.is_connected, "connected again")
    await restartable_broker.publish(SUBJECT, b"1", "id-1")
    assert await restartable_broker.request("tests.echo", b"hello", timeout_s=20) == b"hello"


async def test_a_server_that_falls_silent_is_noticed_and_followed_again(
    restartable_nats: Restartable, restartable_broker: Broker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "HEARTBEAT_S", 0.2)
    handled: list[int] = []

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.extend(int(message.data) for message in batch)
        return [DONE] * len(batch)

    consumer = BatchConsumer(restartable_broker, STORE_INBOX, handle)
    await consumer.start()
    await publish_surely(restartable_broker, 1)
    await eventually(lambda: handled == [1], "messages flow")
    restartable_nats.freeze()
    await eventually(lambda: "silent" in consumer.reason or "no answer" in consumer.reason, "readiness tells it")
    restartable_nats.thaw()
    await publish_surely(restartable_broker, 2)
    await eventually(lambda: handled == [1, 2], "messages flow again")
    await consumer.stop()


async def test_a_responder_is_ready_when_the_server_knows_it(
    restartable_nats: Restartable, restartable_broker: Broker
) -> None:
    async def echo(data: bytes) -> bytes:
        return data

    restartable_nats.freeze()
    responding = asyncio.create_task(restartable_broker.respond("tests.echo", echo, "tests"))
    too_early, _ = await asyncio.wait([responding], timeout=0.5)
    assert not too_early
    restartable_nats.thaw()
    await responding
    assert await restartable_broker.request("tests.echo", b"hi", timeout_s=20) == b"hi"


async def test_a_watch_that_dies_of_a_mistake_ends_the_reading_and_the_next_one_works(
    broker: Broker, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[bytes] = []
    begun = {"stream_seq": 0}
    whole = {
        "ts": "2026-11-28T00:00:00Z",
        "ack_floor": begun,
        "delivered": begun,
        "num_pending": 0,
        "num_ack_pending": 0,
        "num_waiting": 0,
    }
    answers_in_turn = cycle([whole, {}])

    async def handle(batch: Sequence[Incoming]) -> Sequence[Verdict]:
        handled.extend(message.data for message in batch)
        return [DONE] * len(batch)

    async def nonsense(operation: str, **arguments: object) -> dict[str, object]:
        del operation, arguments
        return next(answers_in_turn)  # the first is for the reading that begins, the second for its watch

    monkeypatch.setattr(pull, "STALL_S", 0.01)
    consumer = BatchConsumer(broker, STORE_INBOX, handle)
    with monkeypatch.context() as answers:
        answers.setattr(broker, "answered", nonsense)
        await consumer.start()
        await eventually(lambda: "watch of" in consumer.reason, "readiness tells that the watch has died")
    await broker.publish(SUBJECT, b"on", "id-1")
    await eventually(lambda: consumer.healthy and handled == [b"on"], "messages flow")
    await consumer.stop()

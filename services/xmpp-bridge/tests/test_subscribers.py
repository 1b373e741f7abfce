"""A batch becomes stanzas in stream order, however many receivers a message has, and poison does not stop it."""

import asyncio
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import SeqsAnswer, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.stanzas import DELAY_NS
from tlim_protocol.subjects import subject_out
from tlim_runtime.consumer import DONE, Incoming, Later, Poison
from tlim_runtime.metrics import Metrics
from tlim_runtime.tracing import IN_HAND, Tracing
from tlim_runtime.trail import Passed
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.lanes import MANY, PORTIONS_AT_ONCE
from xmpp_bridge.subscribers import OutboxSubscriber
from xmpp_bridge.translate import Accept, BridgeAddresses

ADDRESSES = BridgeAddresses("im.itonglian.com", "bridge.im.itonglian.com")
BIGGEST_GROUP = 10_000
MIB = 1024 * 1024


class FakeComponent:
    """Takes stanzas as the real one does, one after the other, and keeps only what a test looks at."""

    def __init__(self) -> None:
        self.receivers: list[str] = []
        self.late: set[str] = set()  # messages that came with a delay
        self.characters = 0

    async def deliver(self, stanzas: Iterable[str]) -> None:
        for stanza in stanzas:
            self.receivers.append(stanza.partition(" to='")[2].partition("@")[0])
            self.characters += len(stanza)
            if DELAY_NS in stanza:
                self.late.add(stanza.partition(" id='")[2].partition("'")[0])

    async def barrier(self) -> None:
        pass


class NothingRecalled:
    """The store; `asked_for` notes the traces in whose name it was asked."""

    def __init__(self) -> None:
        self.asked_for: list[Sequence[str | None]] = []

    async def request(self, subject: str, payload: bytes) -> bytes:
        assert subject
        assert payload
        self.asked_for.append(IN_HAND.get())
        return SeqsAnswer(seqs=[]).to_bytes()


def group_message(seq: int, members: int, text: str = "hello") -> StoredMessage:
    envelope = Envelope(
        msg_from="alice", msg_id=f"m{seq}", msg_type=MsgType.GROUP_TEXT, body=[{"session_id": "s-1", "text": text}]
    )
    recipients = [f"user{number}" for number in range(members)]
    return StoredMessage(seq=seq, stored_at=1, recipients=recipients, envelope=envelope)


def subscriber(
    component: FakeComponent, everybody: Any, metrics: Metrics | None = None, store: NothingRecalled | None = None
) -> OutboxSubscriber:
    return OutboxSubscriber(
        component,
        ADDRESSES,
        Backlog(store or NothingRecalled()),
        metrics or Metrics(),
        accept=Accept.DIVERTED,
        presence=everybody,
        culprits=Culprits(),
        consumer="xmpp-bridge",
        slots=asyncio.Semaphore(PORTIONS_AT_ONCE),
    )


def batch_of(*data: bytes) -> list[Incoming]:
    subject = subject_out(MsgType.GROUP_TEXT, "alice")
    return [Incoming(subject, one, stream_seq=place, received_at=0) for place, one in enumerate(data, 1)]


async def test_each_receiver_and_then_its_sender_gets_each_message_in_stream_order(everybody: Any) -> None:
    component = FakeComponent()
    batch = batch_of(*(group_message(seq, members).to_bytes() for seq, members in ((1, 2), (2, 3))))
    assert await subscriber(component, everybody).handle(batch) == [DONE, DONE]
    assert component.receivers == ["user0", "user1", "alice", "user0", "user1", "user2", "alice"]


async def test_poison_is_named_and_its_neighbours_are_delivered(everybody: Any) -> None:
    component = FakeComponent()
    batch = batch_of(b"nonsense", group_message(2, 1).to_bytes())
    first, second = await subscriber(component, everybody).handle(batch)
    assert isinstance(first, Poison)
    assert second == DONE
    assert component.receivers == ["user0", "alice"]


async def test_a_batch_is_timed_when_the_server_has_it_and_its_messages_leave_a_trail(everybody: Any) -> None:
    metrics = Metrics()
    event = group_message(1, 2).model_copy(update={"received_at": 1})
    await subscriber(FakeComponent(), everybody, metrics).handle(batch_of(event.to_bytes(), b"nonsense"))
    value = metrics.registry.get_sample_value
    assert value("tlim_message_stage_duration_seconds_count", {"stage": "deliver"}) == 1
    assert value("tlim_message_end_to_end_duration_seconds_count") == 1
    assert [(step, detail) for step, _, detail in metrics.trail.of("m1")] == [(Passed.DELIVERED, "xmpp-bridge")]


@pytest.mark.parametrize("members", [2, MANY + 1])
async def test_whether_late_messages_are_recalled_is_asked_in_their_traces(new_everybody: Any, members: int) -> None:
    presence = new_everybody()
    presence.server_keeps, presence.is_due = False, lambda _user, _seq: True
    traces, store, tracing = [f"00-{'4b' * 16}-{'0a' * 8}-01", None], NothingRecalled(), Tracing()
    tracing.is_on = True
    batch = batch_of(*(group_message(seq, members).to_bytes() for seq in (1, 2)))
    traced = [replace(message, traceparent=trace) for message, trace in zip(batch, traces, strict=True)]
    verdicts = await subscriber(FakeComponent(), presence, Metrics(tracing), store).handle(traced)
    assert [await one.verdict if isinstance(one, Later) else one for one in verdicts] == [DONE] * 2
    assert store.asked_for[0] == traces
    assert [list(one) for one in store.asked_for[1:]] == [[trace] for trace in traces if members > MANY]
    assert IN_HAND.get() == ()


@pytest.mark.parametrize("members", [2, MANY + 1])
async def test_what_had_been_begun_before_comes_with_a_delay(new_everybody: Any, members: int) -> None:
    """A device that came after the first delivery may have got what is newer."""
    component, presence = FakeComponent(), new_everybody()
    presence.server_keeps, presence.is_due = False, lambda _user, _seq: True
    outbox = subscriber(component, presence)
    outbox.opened(2)
    verdicts = await outbox.handle(batch_of(*(group_message(seq, members).to_bytes() for seq in (1, 2, 3))))
    assert [await one.verdict if isinstance(one, Later) else one for one in verdicts] == [DONE] * 3
    assert component.receivers.count("user1") == 3
    assert component.late == {"m1", "m2"}
    outbox.opened(0)
    await outbox.handle(batch_of(group_message(1, 1).to_bytes()))
    assert component.late == {"m1", "m2"}


async def test_a_big_message_to_the_biggest_group_does_not_fill_memory(everybody: Any) -> None:
    component = FakeComponent()
    batch = batch_of(group_message(1, BIGGEST_GROUP, "x" * 20_000).to_bytes())
    handle = subscriber(component, everybody).handle
    tracemalloc.start()
    try:
        await handle(batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(component.receivers) == BIGGEST_GROUP + 1, "the sender's other devices get one copy"
    assert component.characters > 150 * MIB
    assert peak < 10 * MIB

"""Only what is delivered late is asked about, and of what was recalled only the confirmation is left."""

from collections.abc import Sequence

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import OutEvent, RejectedMessage, SeqsAnswer, SeqsQuestion, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from xmpp_bridge.backlog import LATE_MS, Backlog

NOW = 1_700_000_000


class FakeStore:
    """Knows what was recalled, and remembers what it was asked."""

    def __init__(self) -> None:
        self.recalled: set[int] = set()
        self.asked: list[int] = []
        self.is_up = True

    async def request(self, subject: str, payload: bytes) -> bytes:
        if not self.is_up:
            raise BrokerUnavailable(f"no answer on {subject}")
        seqs = SeqsQuestion.from_bytes(payload).seqs
        self.asked.extend(seqs)
        return SeqsAnswer(seqs=[seq for seq in seqs if seq in self.recalled]).to_bytes()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def backlog(store: FakeStore) -> Backlog:
    return Backlog(store, clock=lambda: NOW)


def message(seq: int, age_ms: int = LATE_MS + 1, kind: MsgType = MsgType.TEXT, *receivers: str) -> StoredMessage:
    envelope = Envelope(msg_from="alice", msg_to="bob", msg_id=f"m{seq}", msg_type=kind, body=[{"text": "hello"}])
    return StoredMessage(
        seq=seq,
        stored_at=NOW * 1000 - age_ms,
        recipients=list(receivers or ("bob",)),
        envelope=envelope,
        reply_to="alice@im.itonglian.com/phone",
        stanza_id="s1",
        received_at=1,
    )


REFUSED = RejectedMessage(
    code=ErrorCode.USER_UNKNOWN,
    detail="not known",
    msg_id="m1",
    msg_type=MsgType.TEXT,
    sender="alice",
    reply_to="alice@im.itonglian.com/phone",
    stanza_id="s1",
    received_at=1,
    after_seq=0,
)


async def remaining(backlog: Backlog, events: Sequence[OutEvent]) -> Sequence[OutEvent]:
    """What is left of events that came the moment they were stored."""
    received = [event.stored_at if isinstance(event, StoredMessage) else NOW * 1000 for event in events]
    return await backlog.without_recalled(events, received)


@pytest.mark.parametrize(("ahead", "asked"), [(-90_000, [1, 2]), (90_000, [1])])
async def test_no_skew_of_the_store_s_clock_makes_a_late_message_fresh(
    backlog: Backlog, store: FakeStore, ahead: int, asked: list[int]
) -> None:
    events = [message(1, age_ms=LATE_MS + 1 - ahead), message(2, age_ms=-ahead)]
    await backlog.without_recalled(events, [NOW * 1000 - LATE_MS - 1, NOW * 1000])
    assert store.asked == asked


async def test_fresh_messages_are_delivered_without_a_question(backlog: Backlog, store: FakeStore) -> None:
    store.is_up = False
    events: list[OutEvent] = [message(1, age_ms=0), message(2, age_ms=LATE_MS), REFUSED]
    assert await remaining(backlog, events) == events


async def test_a_recalled_message_is_only_confirmed_when_it_comes_late(backlog: Backlog, store: FakeStore) -> None:
    store.recalled = {2}
    first, second, third = await remaining(backlog, [message(1), message(2), message(3)])
    assert (first, third) == (message(1), message(3))
    assert second == message(2).model_copy(update={"recipients": [], "is_news": False})
    assert store.asked == [1, 2, 3]


async def test_all_that_was_stored_before_a_failed_delivery_is_tried_again_is_late(
    backlog: Backlog, store: FakeStore
) -> None:
    store.recalled = {2}
    backlog.fall_behind()
    for seq, age in ((1, 1), (2, 500), (3, 0)):
        (event,) = await remaining(backlog, [message(seq, age_ms=age)])
        assert event == message(seq, age_ms=age).model_copy(
            update={"recipients": [], "is_news": False} if seq == 2 else {}
        )
    assert store.asked == [1, 2]


async def test_only_chat_messages_that_somebody_receives_are_asked_about(backlog: Backlog, store: FakeStore) -> None:
    resend = message(3).model_copy(update={"recipients": [], "is_news": False})
    events: list[OutEvent] = [message(1, kind=MsgType.RECALL), message(2, kind=MsgType.READ), resend, REFUSED]
    assert await remaining(backlog, events) == events
    assert store.asked == []


async def test_without_an_answer_nothing_that_is_late_is_delivered(backlog: Backlog, store: FakeStore) -> None:
    store.is_up = False
    with pytest.raises(Unavailable):
        await remaining(backlog, [message(1)])

"""A system user's message is checked like any other, stored once, and answered by what the store says of it."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import (
    AcceptedMessage,
    AuditAction,
    AuditNote,
    OutEvent,
    RejectedMessage,
    StoredMessage,
    UserMeet,
    UsersKnown,
)
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc, subject_in
from tlim_runtime.broker import PubAck
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from tlim_runtime.throttle import Throttle
from tlim_runtime.tracing import Headers
from xmpp_bridge.awaited import Awaited
from xmpp_bridge.pace import SenderPace
from xmpp_bridge.system_service import AdminCaller, Draft, SystemSender
from xmpp_bridge.translate import Accept, BridgeAddresses, write_event

ADDRESSES = BridgeAddresses("im.itonglian.com", "bridge.im.itonglian.com")
Store = Callable[[AcceptedMessage], OutEvent | None]


class FakeBroker:
    """JetStream, the directory with its audit log, and a store that answers what the test says."""

    def __init__(self, awaited: Awaited) -> None:
        self.awaited = awaited
        self.published: list[tuple[str, AcceptedMessage]] = []
        self.seen: list[str] = []
        self.noted: list[AuditNote] = []
        self.is_noting = True
        self.is_up = True
        self.store: Store = stored
        self.heard: Callable[[OutEvent], None] = lambda _: None

    async def publish(self, subject: str, payload: bytes, *, headers: Headers) -> PubAck:
        del headers
        if not self.is_up:
            raise BrokerUnavailable("away")
        message = AcceptedMessage.from_bytes(payload)
        self.published.append((subject, message))
        answer = self.store(message)
        if answer is not None:
            self.awaited.settle(answer)
            self.heard(answer)
        return PubAck(stream="TLIM_IN", seq=len(self.published))

    async def request(self, subject: str, payload: bytes) -> bytes:
        if subject == Rpc.AUDIT_NOTE:
            if not self.is_noting:
                raise BrokerUnavailable("no answer")
            self.noted.append(AuditNote.from_bytes(payload))
            return b""
        self.seen.extend(UserMeet.from_bytes(payload).seen)
        return UsersKnown(known=[]).to_bytes()


def stored(message: AcceptedMessage) -> StoredMessage:
    return StoredMessage(
        seq=7,
        stored_at=8,
        recipients=["bob"],
        envelope=message.envelope,
        reply_to=message.reply_to,
        stanza_id=message.stanza_id,
        received_at=message.received_at,
    )


def to_a_group_of_eight(message: AcceptedMessage) -> StoredMessage:
    return stored(message).model_copy(update={"recipients": list("abcdefgh"), "reach": 8})


def refused(message: AcceptedMessage) -> RejectedMessage:
    return RejectedMessage(
        code=ErrorCode.USER_UNKNOWN,
        detail="to 'nobody' is not known",
        field="to",
        msg_id=message.envelope.msg_id,
        msg_type=message.envelope.msg_type,
        sender=message.sender,
        reply_to=message.reply_to,
        stanza_id=message.stanza_id,
        received_at=message.received_at,
        after_seq=0,
    )


def silent(_: AcceptedMessage) -> None:
    """Store it, perhaps, and say nothing."""


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker(Awaited())


@pytest.fixture
def sender(broker: FakeBroker) -> SystemSender:
    return made(broker)


def made(broker: FakeBroker, deliveries: str = "1000/hour") -> SystemSender:
    """Return a sender whose system users may reach so many people. It hears the store's answers as the bridge does."""
    names = ("messages", "receipts", "sizes")
    pace = SenderPace(**{name: Throttle("1/hour", "user") for name in names}, deliveries=Throttle(deliveries, "user"))
    broker.heard = pace.heard
    users, timeout = ["System", "robot"], timedelta(seconds=0.05)
    return SystemSender(broker, broker.awaited, users, timeout, pace=pace, via="this bridge")


ADMIN = AdminCaller("erp", "request-1")
TEXT = Draft("system", "bob", None, MsgType.TEXT, [{"text": "hello"}], "m1")
GROUP_TEXT = Draft("system", None, "s-1", MsgType.GROUP_TEXT, [{"text": "hello"}, {"text": "all"}], "m1")


async def test_it_goes_the_way_of_all_messages(sender: SystemSender, broker: FakeBroker) -> None:
    event = await sender.send(ADMIN, TEXT)
    ((subject, message),) = broker.published
    assert (subject, message.envelope.msg_id) == (subject_in(MsgType.TEXT, "u:bob:system"), "m1")
    assert (message.sender, message.envelope.msg_to, message.envelope.body) == ("system", "bob", [{"text": "hello"}])
    assert (event.seq, event.stored_at) == (7, 8)
    assert broker.seen == ["system"]


async def test_a_session_is_named_in_every_element(sender: SystemSender, broker: FakeBroker) -> None:
    await sender.send(ADMIN, GROUP_TEXT)
    ((subject, message),) = broker.published
    assert subject == subject_in(MsgType.GROUP_TEXT, "s-1")
    assert [element["session_id"] for element in message.envelope.body] == ["s-1", "s-1"]


async def test_an_element_with_null_for_a_session_gets_it(sender: SystemSender, broker: FakeBroker) -> None:
    await sender.send(ADMIN, GROUP_TEXT._replace(body=[{"text": "hello", "session_id": None}]))
    ((_, message),) = broker.published
    assert message.envelope.body == [{"text": "hello", "session_id": "s-1"}]


@pytest.mark.parametrize(("draft", "target"), [(TEXT, "bob"), (GROUP_TEXT, "s-1")])
async def test_who_asked_for_it_is_noted_first(
    sender: SystemSender, broker: FakeBroker, draft: Draft, target: str
) -> None:
    await sender.send(ADMIN, draft)
    broker.is_noting = False
    with pytest.raises(Unavailable):
        await sender.send(ADMIN, draft._replace(msg_id="m2"))
    (note,) = broker.noted
    assert (note.actor, note.request_id, note.action) == ("erp", "request-1", AuditAction.MESSAGE_SEND)
    assert (note.target, note.detail) == (target, {"from": "system", "msg_id": "m1", "msg_type": draft.msg_type})
    assert len(broker.published) == 1


async def test_a_missing_msg_id_is_made_up(sender: SystemSender) -> None:
    first, second = [await sender.send(ADMIN, TEXT._replace(msg_id=None)) for _ in range(2)]
    assert first.envelope.msg_id != second.envelope.msg_id


@pytest.mark.parametrize("stranger", ["alice", "system2"])
async def test_nobody_but_a_system_user_is_spoken_for(sender: SystemSender, broker: FakeBroker, stranger: str) -> None:
    with pytest.raises(TlimError) as refusal:
        await sender.send(ADMIN, TEXT._replace(sender=stranger))
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.NOT_ALLOWED, "from")
    assert (broker.published, broker.seen, broker.noted) == ([], [], [])


@pytest.mark.parametrize(
    ("draft", "code"),
    [
        (TEXT._replace(to=None), ErrorCode.USER_UNKNOWN),
        (TEXT._replace(msg_type=None), ErrorCode.MSG_TYPE_INVALID),
        (TEXT._replace(msg_type=MsgType.SESSION_ADDED), ErrorCode.MSG_TYPE_INVALID),
        (TEXT._replace(body=None), ErrorCode.BODY_EMPTY),
        (TEXT._replace(body=[{"text": ""}]), ErrorCode.BODY_EMPTY),
        (TEXT._replace(body={"text": "hello"}), ErrorCode.NOT_AN_ARRAY),
        (TEXT._replace(body=[{"text": "\ud800"}]), ErrorCode.JSON_INVALID),
        (TEXT._replace(msg_id="x" * 65), ErrorCode.FIELD_INVALID),
        (TEXT._replace(msg_id=""), ErrorCode.FIELD_INVALID),
        (TEXT._replace(msg_id="\u3000"), ErrorCode.FIELD_INVALID),
        (GROUP_TEXT._replace(session_id=None), ErrorCode.SESSION_ID_EMPTY),
        (GROUP_TEXT._replace(body=[{"text": "a", "session_id": "s-2"}, {"text": "b"}]), ErrorCode.SESSION_ID_EMPTY),
        (GROUP_TEXT._replace(body=[{"text": "a", "session_id": "s-2"}]), ErrorCode.SESSION_ID_EMPTY),
        (GROUP_TEXT._replace(body='[{"text": "a", "session_id": "s-2"}]'), ErrorCode.SESSION_ID_EMPTY),
        (GROUP_TEXT._replace(body=["hello"]), ErrorCode.NOT_AN_ARRAY),
    ],
)
async def test_it_is_checked_like_a_clients(
    sender: SystemSender, broker: FakeBroker, draft: Draft, code: ErrorCode
) -> None:
    with pytest.raises(TlimError) as refusal:
        await sender.send(ADMIN, draft)
    assert refusal.value.code is code
    assert (broker.published, broker.noted) == ([], [])


async def test_a_system_user_pays_for_the_people_whom_it_reaches(broker: FakeBroker) -> None:
    sender = made(broker, deliveries="8/hour")
    broker.store = to_a_group_of_eight
    await sender.send(ADMIN, GROUP_TEXT)  # nobody knew how large the group is
    with pytest.raises(TooManyRequests) as refusal:
        await sender.send(ADMIN, GROUP_TEXT._replace(msg_id="m2"))
    assert 0 < refusal.value.retry_after <= 900
    await sender.send(ADMIN, GROUP_TEXT._replace(sender="robot", msg_id="m3"))
    assert [message.envelope.msg_id for _, message in broker.published] == ["m1", "m3"]
    assert [note.detail["msg_id"] for note in broker.noted] == ["m1", "m3"]


async def test_what_the_store_refuses_is_refused(sender: SystemSender, broker: FakeBroker) -> None:
    broker.store = refused
    with pytest.raises(TlimError) as refusal:
        await sender.send(ADMIN, TEXT._replace(to="nobody"))
    assert (refusal.value.code, refusal.value.field) == (ErrorCode.USER_UNKNOWN, "to")


async def test_the_same_again_asks_the_store_again(sender: SystemSender, broker: FakeBroker) -> None:
    for _ in range(2):
        assert (await sender.send(ADMIN, TEXT)).seq == 7
    assert [message.envelope.msg_id for _, message in broker.published] == ["m1"] * 2
    assert broker.seen == ["system"]


async def test_without_an_answer_it_may_have_been_stored(sender: SystemSender, broker: FakeBroker) -> None:
    broker.store = silent
    with pytest.raises(TlimError, match="send it again with msg_id m1") as refusal:
        await sender.send(ADMIN, TEXT)
    assert refusal.value.code is ErrorCode.UNAVAILABLE


async def test_without_jetstream_it_was_not(sender: SystemSender, broker: FakeBroker) -> None:
    broker.is_up = False
    with pytest.raises(Unavailable):
        await sender.send(ADMIN, TEXT)


@pytest.mark.parametrize("answer", [stored, refused])
async def test_an_answer_that_nobody_waits_for_any_more_is_harmless_and_told_to_no_device(
    sender: SystemSender, broker: FakeBroker, answer: Store
) -> None:
    broker.store = answer
    await asyncio.gather(sender.send(ADMIN, TEXT), return_exceptions=True)
    event = answer(broker.published[0][1])
    assert event is not None
    broker.awaited.settle(event)
    addressees = [
        stanza.partition(" to='")[2].partition("@")[0] for stanza in write_event(event, ADDRESSES, Accept.DIVERTED)
    ]
    assert addressees == (["bob", "system"] if answer is stored else []), (
        "what was sent is copied to the user's devices"
    )

"""What is taken over is published once and in order; what is not is answered with exactly one code."""

import asyncio
import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

import pytest
from structlog.testing import capture_logs
from tlim_protocol.envelope import MAX_STANZA_BYTES
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AcceptedMessage, RejectedMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import in_message_id, subject_in
from tlim_runtime.broker import PubAck
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from tlim_runtime.throttle import Throttle
from xmpp_bridge import service
from xmpp_bridge.service import MessageIntake, UserPace
from xmpp_bridge.translate import Accept, BridgeAddresses

DOMAIN = "im.itonglian.com"
LIMIT = 10
PACE = 15
BYTES = 100_000


@dataclass
class Published:
    """One publish, to be answered by the test."""

    subject: str
    payload: bytes
    message_id: str
    future: asyncio.Future[PubAck]

    def succeed(self, *, duplicate: bool = False) -> None:
        self.future.set_result(PubAck(stream="TLIM_IN", seq=1, duplicate=duplicate))

    def fail(self, error: Exception | None = None) -> None:
        self.future.set_exception(error or BrokerUnavailable("away"))


@dataclass
class FakePublisher:
    published: list[Published] = field(default_factory=list)

    def publish_soon(self, subject: str, payload: bytes, message_id: str) -> asyncio.Future[PubAck]:
        future: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        self.published.append(Published(subject, payload, message_id, future))
        return future


@dataclass
class FakeDoor:
    sent: list[ET.Element] = field(default_factory=list)
    is_open: bool = True
    is_connected: bool = True

    def send(self, stanzas: str) -> None:
        if not self.is_connected:
            raise BrokerUnavailable("no connection")
        self.sent.append(ET.XML(stanzas))

    def pause(self) -> None:
        self.is_open = False

    def resume(self) -> None:
        self.is_open = True


def addressed(text: str | None, sender: str = f"alice@{DOMAIN}/phone", stanza_id: str = "s1") -> ET.Element:
    stanza = ET.Element(
        "{jabber:component:accept}message", {"from": sender, "to": f"bob@bridge.{DOMAIN}", "id": stanza_id}
    )
    if text is not None:
        ET.SubElement(stanza, "{jabber:component:accept}body").text = text
    ET.SubElement(stanza, f"{{{DOMAIN}}}tlim", {"location": "mobile"})
    return stanza


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
async def intake(publisher: FakePublisher, door: FakeDoor) -> MessageIntake:
    addresses = BridgeAddresses(DOMAIN, f"bridge.{DOMAIN}")
    pace = UserPace(*(Throttle(f"{rate}/hour", "user") for rate in (PACE, 2 * PACE, BYTES)))
    return MessageIntake(
        addresses, publisher, door, Metrics(), pace=pace, in_flight_limit=LIMIT, accept=Accept.ADDRESSED
    )


def text(number: int = 1, sender: str = "alice", **changes: object) -> str:
    envelope = {
        "from": sender,
        "to": "bob",
        "msg_id": f"m{number}",
        "msg_type": MsgType.TEXT,
        "body": [{"text": "hello"}],
    }
    return json.dumps(envelope | changes)


async def settle() -> None:
    """Let the callbacks of finished futures run: they run in the next turn of the loop, theirs in the one after."""
    for _ in range(3):
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(done.set_result, None)
        await done


def refusals(door: FakeDoor) -> Iterator[tuple[str | None, str | None, str | None]]:
    for stanza in door.sent:
        element = stanza.find(f"{{{DOMAIN}}}error")
        assert element is not None
        assert stanza.findtext("body") == element.get("code")
        yield element.get("code"), element.get("msg_id"), stanza.get("id")


async def test_a_valid_message_is_published_with_its_sender(intake: MessageIntake, publisher: FakePublisher) -> None:
    intake.take(addressed(text(), sender=f"Alice@{DOMAIN}/phone"))
    (published,) = publisher.published
    message = AcceptedMessage.from_bytes(published.payload)
    assert (message.sender, message.reply_to) == ("alice", f"Alice@{DOMAIN}/phone")
    assert (message.stanza_id, message.location) == ("s1", "mobile")
    assert published.message_id == in_message_id("alice", "m1")
    assert published.subject == subject_in(MsgType.TEXT, "u:alice:bob")


async def test_messages_are_published_in_the_order_they_came(intake: MessageIntake, publisher: FakePublisher) -> None:
    for number in range(LIMIT):
        intake.take(addressed(text(number)))
    expected = [in_message_id("alice", f"m{number}") for number in range(LIMIT)]
    assert [published.message_id for published in publisher.published] == expected


@pytest.mark.parametrize(
    ("stanza", "answer"),
    [
        (addressed(None), (ErrorCode.BODY_EMPTY, None, "s1")),
        (addressed("nonsense"), (ErrorCode.JSON_INVALID, None, "s1")),
        (addressed(text(msg_type="?")), (ErrorCode.MSG_TYPE_INVALID, "m1", "s1")),
        (addressed(text(sender="bob")), (ErrorCode.FROM_NOT_SENDER, "m1", "s1")),
        (addressed("x" * MAX_STANZA_BYTES), (ErrorCode.FIELD_INVALID, None, "s1")),
        (addressed(text(), sender=f"{'a' * 65}@{DOMAIN}/x"), (ErrorCode.FIELD_INVALID, None, "s1")),
    ],
)
async def test_an_invalid_message_is_refused_and_not_published(
    intake: MessageIntake,
    publisher: FakePublisher,
    door: FakeDoor,
    stanza: ET.Element,
    answer: tuple[ErrorCode, str | None, str],
) -> None:
    intake.take(stanza)
    assert list(refusals(door)) == [answer]
    assert publisher.published == []


async def test_a_stanza_without_id_is_refused_without_id(intake: MessageIntake, door: FakeDoor) -> None:
    intake.take(addressed("nonsense", stanza_id=""))
    assert list(refusals(door)) == [(ErrorCode.JSON_INVALID.value, None, None)]


async def test_what_is_not_ours_is_ignored_quietly(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    intake.take(addressed(text(), sender="alice@evil.example/x"))
    assert (publisher.published, door.sent) == ([], [])


async def test_a_message_in_the_way_that_is_not_believed_is_named_once_in_the_log(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    inner = f"<message xmlns='jabber:client' from='alice@{DOMAIN}/x'><body/><tlim xmlns='{DOMAIN}'/></message>"
    outer = f"<message xmlns='jabber:component:accept' from='{DOMAIN}'><forwarded xmlns='urn:xmpp:forward:0'>"
    with capture_logs() as lines:
        for _ in range(2):
            intake.take(ET.XML(f"{outer}{inner}</forwarded></message>"))
    assert ["TLIM_ACCEPT" in line["event"] for line in lines] == [True]
    assert (publisher.published, door.sent) == ([], [])


async def test_a_failed_publish_is_told_to_the_sender_and_turns_readiness_red(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    intake.take(addressed(text()))
    publisher.published[0].fail()
    await intake.drained()
    assert list(refusals(door)) == [(ErrorCode.UNAVAILABLE.value, "m1", "s1")]
    with pytest.raises(Unavailable):
        await intake.ping()


async def test_the_next_success_turns_readiness_green(intake: MessageIntake, publisher: FakePublisher) -> None:
    for number in (1, 2):
        intake.take(addressed(text(number)))
    publisher.published[0].fail()
    publisher.published[1].succeed()
    await intake.drained()
    await intake.ping()


async def test_a_resend_is_published_once_more_under_an_id_of_its_own(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    intake.take(addressed(text()))
    publisher.published[0].succeed(duplicate=True)
    await settle()
    first, again = publisher.published
    assert again.message_id.startswith(f"{first.message_id}:")
    assert (again.subject, again.payload) == (first.subject, first.payload)
    again.succeed(duplicate=True)
    await intake.drained()
    assert len(publisher.published) == 2
    assert door.sent == []


async def test_a_resend_that_cannot_be_published_is_told_to_the_sender(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    intake.take(addressed(text()))
    publisher.published[0].succeed(duplicate=True)
    await settle()
    publisher.published[1].fail()
    await intake.drained()
    assert list(refusals(door)) == [(ErrorCode.UNAVAILABLE.value, "m1", "s1")]


async def test_the_door_closes_at_the_bound_and_opens_below_half(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    for number in range(LIMIT - 1):
        intake.take(addressed(text(number)))
    assert door.is_open
    intake.take(addressed(text(LIMIT)))
    assert not door.is_open
    for published in publisher.published[: LIMIT // 2 - 1]:
        published.succeed()
    await settle()
    assert not door.is_open
    publisher.published[LIMIT // 2].succeed()
    await settle()
    assert door.is_open


async def test_the_door_closes_at_the_bound_of_bytes_too(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_BYTES_IN_FLIGHT", 5_000)
    intake.take(addressed(text(1, body=[{"text": "x" * 4_000}])))
    assert door.is_open
    intake.take(addressed(text(2, body=[{"text": "x" * 4_000}])))
    assert not door.is_open
    for published in publisher.published:
        published.succeed()
    await settle()
    assert door.is_open


def packed(body: str) -> str:
    return base64.b64encode(zlib.compress(body.encode(), 9)).decode()


async def test_bytes_are_counted_and_what_is_over_is_not_read(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    intake.take(addressed(text(1, body=[{"text": "x" * BYTES}])))
    intake.take(addressed("nonsense"))
    assert len(publisher.published) == 1
    assert list(refusals(door)) == [(ErrorCode.TOO_MANY_REQUESTS.value, None, "s1")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('[{"text":"' + "x" * BYTES + '"}]', None),
        ("[" + "1," * BYTES + "1]", ErrorCode.FIELD_INVALID),
        ("[" + " " * BYTES + "1]", ErrorCode.NOT_AN_ARRAY),
    ],
    ids=["accepted", "too many values", "no objects"],
)
async def test_a_compressed_body_is_charged_by_its_unpacked_size_whatever_becomes_of_it(
    intake: MessageIntake, door: FakeDoor, body: str, code: ErrorCode | None
) -> None:
    intake.take(addressed(text(1, compress="1", body=packed(body))))
    intake.take(addressed(text(2)))
    expected = [] if code is None else [(code, "m1", "s1")]
    assert list(refusals(door)) == [*expected, (ErrorCode.TOO_MANY_REQUESTS, None, "s1")]


async def test_when_bytes_are_used_up_a_compressed_body_is_not_read(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    intake.take(addressed(text(1, body=[{"text": "x" * (BYTES - 2_000)}])))
    intake.take(addressed(text(2, body=[{"text": "y" * 1_300}])))
    intake.take(addressed(text(3, compress="1", body=packed("no JSON"))))
    assert len(publisher.published) == 2
    assert list(refusals(door)) == [(ErrorCode.TOO_MANY_REQUESTS, None, "s1")]


@pytest.mark.parametrize(
    ("msg_type", "elements"),
    [(MsgType.FILE, [{"file_id": "f"}] * PACE), (MsgType.READ, [{"msg_id": "of bob"}] * 2 * PACE)],
)
async def test_a_message_counts_by_its_elements(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor, msg_type: MsgType, elements: list[dict[str, str]]
) -> None:
    intake.take(addressed(text(1, msg_type=msg_type, body=elements)))
    intake.take(addressed(text(2, msg_type=msg_type, body=elements[:1])))
    assert len(publisher.published) == 1
    assert list(refusals(door)) == [(ErrorCode.TOO_MANY_REQUESTS, "m2", "s1")]


async def test_a_connection_made_at_the_bound_is_closed_too(intake: MessageIntake, door: FakeDoor) -> None:
    for number in range(LIMIT):
        intake.take(addressed(text(number)))
    door.is_open = True
    intake.take(addressed(text(LIMIT)))
    assert not door.is_open


async def test_a_lost_connection_does_not_hurt_who_cannot_be_answered(intake: MessageIntake, door: FakeDoor) -> None:
    door.is_connected = False
    intake.take(addressed("nonsense"))
    assert door.sent == []


async def test_an_unexpected_failure_refuses_this_message_only(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    intake.take(addressed(text()))
    publisher.published[0].fail(ValueError("a subject that NATS cannot carry"))
    await intake.drained()
    intake.take(addressed(text(2)))
    assert list(refusals(door)) == [(ErrorCode.UNAVAILABLE.value, "m1", "s1")]
    assert len(publisher.published) == 2


def receipt(number: int) -> str:
    return text(number, msg_type=MsgType.RECEIVED, body=[{"msg_id": f"of bob {number}"}])


async def test_who_sends_too_much_is_refused_until_later(
    intake: MessageIntake, publisher: FakePublisher, door: FakeDoor
) -> None:
    for number in range(PACE + 2):
        intake.take(addressed(text(number)))
    assert len(publisher.published) == PACE
    assert list(refusals(door)) == [(ErrorCode.TOO_MANY_REQUESTS, f"m{PACE + over}", "s1") for over in range(2)]


async def test_one_users_flood_does_not_hurt_another(intake: MessageIntake, publisher: FakePublisher) -> None:
    for number in range(PACE + 2):
        intake.take(addressed(text(number)))
    intake.take(addressed(text(sender="bob"), sender=f"bob@{DOMAIN}/phone"))
    assert AcceptedMessage.from_bytes(publisher.published[-1].payload).sender == "bob"


async def test_receipts_are_counted_apart(intake: MessageIntake, publisher: FakePublisher, door: FakeDoor) -> None:
    for number in range(2 * PACE):
        intake.take(addressed(receipt(number)))
    for number in range(PACE):
        intake.take(addressed(text(1000 + number)))
    assert (len(publisher.published), door.sent) == (3 * PACE, [])
    intake.take(addressed(receipt(3000)))
    assert list(refusals(door)) == [(ErrorCode.TOO_MANY_REQUESTS, "m3000", "s1")]


async def test_nonsense_is_counted_too(intake: MessageIntake, door: FakeDoor) -> None:
    for _ in range(PACE + 1):
        intake.take(addressed("nonsense"))
    *before, last = [code for code, _, _ in refusals(door)]
    assert before == [ErrorCode.JSON_INVALID] * PACE
    assert last == ErrorCode.TOO_MANY_REQUESTS


def refusal(code: ErrorCode, sender: str = "alice") -> RejectedMessage:
    return RejectedMessage(
        code=code,
        detail="",
        msg_id="m1",
        msg_type=MsgType.GROUP_TEXT,
        sender=sender,
        reply_to=f"{sender}@{DOMAIN}/phone",
        stanza_id="s1",
        received_at=1,
        after_seq=0,
    )


@pytest.mark.parametrize(
    "code", [ErrorCode.SESSION_UNKNOWN, ErrorCode.FILE_UNKNOWN, ErrorCode.USER_UNKNOWN, ErrorCode.NOT_ALLOWED]
)
async def test_a_refusal_that_costs_the_store_a_question_counts_as_many_messages(
    intake: MessageIntake, door: FakeDoor, code: ErrorCode
) -> None:
    for _ in range(3):
        intake.heard(refusal(code))
    intake.take(addressed(text()))
    intake.take(addressed(text(sender="bob"), sender=f"bob@{DOMAIN}/phone"))
    assert list(refusals(door)) == [(ErrorCode.TOO_MANY_REQUESTS, "m1", "s1")]


async def test_other_refusals_of_the_store_cost_nothing_more(intake: MessageIntake, door: FakeDoor) -> None:
    for _ in range(PACE):
        intake.heard(refusal(ErrorCode.RECALL_TOO_LATE))
    intake.take(addressed(text()))
    assert list(refusals(door)) == []

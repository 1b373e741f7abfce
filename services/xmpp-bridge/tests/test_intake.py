"""What is taken over is published once and in order; what is not is answered with exactly one code."""

import asyncio
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from structlog.testing import capture_logs
from tlim_protocol.envelope import MAX_STANZA_BYTES
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AcceptedMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_in
from tlim_runtime.outages import Unavailable
from xmpp_bridge import service

DOMAIN = "im.itonglian.com"
LIMIT = 10


async def settle() -> None:
    """Let the callbacks of finished futures run: they run in the next turn of the loop, theirs in the one after."""
    for _ in range(3):
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(done.set_result, None)
        await done


async def test_a_valid_message_is_published_with_its_sender(entrance: Any) -> None:
    entrance.take_text(address=f"Alice@{DOMAIN}/phone")
    (published,) = entrance.published
    message = AcceptedMessage.from_bytes(published.payload)
    assert (message.sender, message.reply_to) == ("alice", f"Alice@{DOMAIN}/phone")
    assert (message.stanza_id, message.location) == ("s1", "mobile")
    assert published.subject == subject_in(MsgType.TEXT, "u:alice:bob")


async def test_messages_are_published_in_the_order_they_came(entrance: Any) -> None:
    for number in range(LIMIT):
        entrance.take_text(number)
    assert [published.msg_id for published in entrance.published] == [f"m{number}" for number in range(LIMIT)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, ErrorCode.BODY_EMPTY),
        ("nonsense", ErrorCode.JSON_INVALID),
        ("x" * MAX_STANZA_BYTES, ErrorCode.FIELD_INVALID),
    ],
    ids=["none", "nonsense", "large"],
)
async def test_what_cannot_be_read_is_refused_and_not_published(
    entrance: Any, body: str | None, code: ErrorCode
) -> None:
    entrance.take(body)
    assert (entrance.refusals(), entrance.published) == ([(code, None, "s1")], [])


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"msg_type": "?"}, (ErrorCode.MSG_TYPE_INVALID, "m1", "s1")),
        ({"sender": "bob", "address": f"alice@{DOMAIN}/phone"}, (ErrorCode.FROM_NOT_SENDER, "m1", "s1")),
        ({"address": f"{'a' * 65}@{DOMAIN}/x"}, (ErrorCode.FIELD_INVALID, None, "s1")),
    ],
    ids=["type", "sender", "address"],
)
async def test_an_invalid_message_is_refused_and_not_published(
    entrance: Any, changes: dict[str, str], answer: tuple[ErrorCode, str | None, str]
) -> None:
    entrance.take_text(**changes)
    assert (entrance.refusals(), entrance.published) == ([answer], [])


async def test_a_deactivated_user_writes_nothing(entrance: Any) -> None:
    entrance.deactivated.add("alice")
    entrance.take_text(address=f"Alice@{DOMAIN}/phone")
    entrance.take_text(sender="bob")
    assert entrance.refusals() == [(ErrorCode.NOT_ALLOWED, "m1", "s1")]
    assert [AcceptedMessage.from_bytes(one.payload).sender for one in entrance.published] == ["bob"]


async def test_a_stanza_without_id_is_refused_without_id(entrance: Any) -> None:
    entrance.take("nonsense", stanza_id="")
    assert entrance.refusals() == [(ErrorCode.JSON_INVALID.value, None, None)]


async def test_what_is_not_ours_is_ignored_quietly(entrance: Any) -> None:
    entrance.take_text(address="alice@evil.example/x")
    assert (entrance.published, entrance.door.sent) == ([], [])


async def test_a_message_in_the_way_that_is_not_believed_is_named_once_in_the_log(entrance: Any) -> None:
    inner = f"<message xmlns='jabber:client' from='alice@{DOMAIN}/x'><body/><tlim xmlns='{DOMAIN}'/></message>"
    outer = f"<message xmlns='jabber:component:accept' from='{DOMAIN}'><forwarded xmlns='urn:xmpp:forward:0'>"
    with capture_logs() as lines:
        for _ in range(2):
            entrance.intake.take(ET.XML(f"{outer}{inner}</forwarded></message>"))
    assert ["TLIM_ACCEPT" in line["event"] for line in lines] == [True]
    assert (entrance.published, entrance.door.sent) == ([], [])


async def test_a_mistake_of_ours_is_logged_with_the_msg_id_and_told_to_the_sender(
    entrance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance.publisher, "publish_soon", None)
    with capture_logs() as lines:
        entrance.take_text()
    assert [line["msg_id"] for line in lines] == ["m1"]
    assert entrance.refusals() == [(ErrorCode.UNAVAILABLE.value, "m1", "s1")]


async def test_a_failed_publish_is_told_to_the_sender_and_turns_readiness_red(entrance: Any) -> None:
    entrance.take_text()
    entrance.published[0].fail()
    await entrance.intake.drained()
    assert entrance.refusals() == [(ErrorCode.UNAVAILABLE.value, "m1", "s1")]
    with pytest.raises(Unavailable):
        await entrance.intake.ping()


async def test_the_next_success_turns_readiness_green(entrance: Any) -> None:
    for number in (1, 2):
        entrance.take_text(number)
    entrance.published[0].fail()
    entrance.published[1].succeed()
    await entrance.intake.drained()
    await entrance.intake.ping()


async def test_a_resend_is_published_as_well(entrance: Any) -> None:
    """Only the store knows what became of the first one."""
    for _ in range(2):
        entrance.take_text()
    first, again = entrance.published
    assert (again.subject, again.msg_id) == (first.subject, first.msg_id)


async def test_the_door_closes_at_the_bound_and_opens_below_half(entrance: Any) -> None:
    for number in range(LIMIT - 1):
        entrance.take_text(number)
    assert entrance.door.is_open
    entrance.take_text(LIMIT)
    assert not entrance.door.is_open
    for published in entrance.published[: LIMIT // 2 - 1]:
        published.succeed()
    await settle()
    assert not entrance.door.is_open
    entrance.published[LIMIT // 2].succeed()
    await settle()
    assert entrance.door.is_open


async def test_the_door_closes_at_the_bound_of_bytes_too(entrance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_BYTES_IN_FLIGHT", 5_000)
    entrance.take_text(1, body=[{"text": "x" * 4_000}])
    assert entrance.door.is_open
    entrance.take_text(2, body=[{"text": "x" * 4_000}])
    assert not entrance.door.is_open
    for published in entrance.published:
        published.succeed()
    await settle()
    assert entrance.door.is_open


async def test_a_connection_made_at_the_bound_is_closed_too(entrance: Any) -> None:
    for number in range(LIMIT):
        entrance.take_text(number)
    entrance.door.is_open = True
    entrance.take_text(LIMIT)
    assert not entrance.door.is_open


async def test_a_lost_connection_does_not_hurt_who_cannot_be_answered(entrance: Any) -> None:
    entrance.door.is_connected = False
    entrance.take("nonsense")
    assert entrance.door.sent == []


async def test_an_unexpected_failure_refuses_this_message_only(entrance: Any) -> None:
    entrance.take_text()
    entrance.published[0].fail(ValueError("a subject that NATS cannot carry"))
    await entrance.intake.drained()
    entrance.take_text(2)
    assert entrance.refusals() == [(ErrorCode.UNAVAILABLE.value, "m1", "s1")]
    assert len(entrance.published) == 2

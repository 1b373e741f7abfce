"""A user may send so many messages, receipts and bytes, to so many people; what is over is refused."""

import base64
import zlib
from typing import Any

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AcceptedMessage, RejectedMessage, StoredMessage
from tlim_protocol.registry import MsgType

PACE = 15
BYTES = 100_000
PEOPLE = 1_000
"""So many people may one user's messages reach in an hour."""
AT_UNKNOWN_PRICE = 10
"""So many messages to groups of unknown size may wait for the store's answer."""


def packed(body: str) -> str:
    return base64.b64encode(zlib.compress(body.encode(), 9)).decode()


async def test_bytes_are_counted_and_what_is_over_is_not_read(entrance: Any) -> None:
    entrance.take_text(1, body=[{"text": "x" * BYTES}])
    entrance.take("nonsense")
    assert len(entrance.published) == 1
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS.value, None, "s1")]


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
    entrance: Any, body: str, code: ErrorCode | None
) -> None:
    entrance.take_text(1, compress="1", body=packed(body))
    entrance.take_text(2)
    expected = [] if code is None else [(code, "m1", "s1")]
    assert entrance.refusals() == [*expected, (ErrorCode.TOO_MANY_REQUESTS, None, "s1")]


async def test_when_bytes_are_used_up_a_compressed_body_is_not_read(entrance: Any) -> None:
    entrance.take_text(1, body=[{"text": "x" * (BYTES - 2_000)}])
    entrance.take_text(2, body=[{"text": "y" * 1_900}])
    entrance.take_text(3, compress="1", body=packed("no JSON"))
    assert len(entrance.published) == 2
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, None, "s1")]


@pytest.mark.parametrize(
    ("msg_type", "elements"),
    [(MsgType.FILE, [{"file_id": "f"}] * PACE), (MsgType.READ, [{"msg_id": "of bob"}] * 2 * PACE)],
)
async def test_a_message_counts_by_its_elements(
    entrance: Any, msg_type: MsgType, elements: list[dict[str, str]]
) -> None:
    entrance.take_text(1, msg_type=msg_type, body=elements)
    entrance.take_text(2, msg_type=msg_type, body=elements[:1])
    assert len(entrance.published) == 1
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, "m2", "s1")]


def take_receipt(entrance: Any, number: int) -> None:
    entrance.take_text(number, msg_type=MsgType.RECEIVED, body=[{"msg_id": f"of bob {number}"}])


async def test_who_sends_too_much_is_refused_until_later(entrance: Any) -> None:
    for number in range(PACE + 2):
        entrance.take_text(number)
    assert len(entrance.published) == PACE
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, f"m{PACE + over}", "s1") for over in range(2)]


async def test_one_users_flood_does_not_hurt_another(entrance: Any) -> None:
    for number in range(PACE + 2):
        entrance.take_text(number)
    entrance.take_text(sender="bob")
    assert AcceptedMessage.from_bytes(entrance.published[-1].payload).sender == "bob"


async def test_receipts_are_counted_apart(entrance: Any) -> None:
    for number in range(2 * PACE):
        take_receipt(entrance, number)
    for number in range(PACE):
        entrance.take_text(1000 + number)
    assert (len(entrance.published), entrance.door.sent) == (3 * PACE, [])
    take_receipt(entrance, 3000)
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, "m3000", "s1")]


async def test_nonsense_is_counted_too(entrance: Any) -> None:
    for _ in range(PACE + 1):
        entrance.take("nonsense")
    *before, last = [code for code, _, _ in entrance.refusals()]
    assert before == [ErrorCode.JSON_INVALID] * PACE
    assert last == ErrorCode.TOO_MANY_REQUESTS


def refusal(code: ErrorCode, msg_id: str = "m1") -> RejectedMessage:
    return RejectedMessage(
        code=code,
        detail="",
        msg_id=msg_id,
        msg_type=MsgType.GROUP_TEXT,
        sender="alice",
        reply_to="alice@im.itonglian.com/phone",
        stanza_id="s1",
        received_at=1,
        after_seq=0,
    )


@pytest.mark.parametrize(
    "code", [ErrorCode.SESSION_UNKNOWN, ErrorCode.FILE_UNKNOWN, ErrorCode.USER_UNKNOWN, ErrorCode.NOT_ALLOWED]
)
async def test_a_refusal_that_costs_the_store_a_question_counts_as_many_messages(
    entrance: Any, code: ErrorCode
) -> None:
    for _ in range(3):
        entrance.pace.heard(refusal(code))
    entrance.take_text()
    entrance.take_text(sender="bob")
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, "m1", "s1")]


async def test_other_refusals_of_the_store_cost_nothing_more(entrance: Any) -> None:
    for _ in range(PACE):
        entrance.pace.heard(refusal(ErrorCode.RECALL_TOO_LATE))
    entrance.take_text()
    assert entrance.refusals() == []


def body_element(msg_type: MsgType, session: str) -> dict[str, str]:
    if msg_type in {MsgType.READ, MsgType.RECEIVED}:
        return {"msg_id": "of bob", "session_id": session}
    return {"text": "hello", "session_id": session}


def to_group(entrance: Any, number: int, msg_type: MsgType = MsgType.GROUP_TEXT, session: str = "crowd") -> None:
    entrance.take_text(number, body=[body_element(msg_type, session)], msg_type=msg_type)


def stored(
    people: int,
    msg_type: MsgType = MsgType.GROUP_TEXT,
    session: str = "crowd",
    msg_id: str = "m1",
    **changes: Any,
) -> StoredMessage:
    recipients = [f"person{number}" for number in range(people)]
    body = [body_element(msg_type, session)]
    envelope = Envelope(msg_id=msg_id, msg_from="alice", msg_to="bob", msg_type=msg_type, body=body)
    return StoredMessage(
        seq=1, stored_at=1, recipients=recipients, envelope=envelope, **{"reach": len(recipients), **changes}
    )


async def test_a_message_to_a_large_group_counts_as_many_and_the_refusal_says_until_when(entrance: Any) -> None:
    to_group(entrance, 1)
    entrance.pace.heard(stored(PEOPLE // 2))
    to_group(entrance, 2)
    to_group(entrance, 3)
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, "m3", "s1")]
    error = entrance.door.sent[-1].find("{im.itonglian.com}error")
    assert 1 <= int(error.get("retry_after")) <= 3_600
    entrance.take_text(4, sender="bob")
    assert len(entrance.published) == 3


async def test_a_large_message_to_a_group_counts_as_several_for_each_member(entrance: Any) -> None:
    large = [{"text": "x" * (BYTES // 12), "session_id": "crowd"}]  # counts as two
    entrance.take_text(1, body=large, msg_type=MsgType.GROUP_TEXT)
    entrance.pace.heard(stored(PEOPLE // 4))
    entrance.take_text(2, body=large, msg_type=MsgType.GROUP_TEXT)
    to_group(entrance, 3)
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, "m3", "s1")]


async def test_a_message_of_many_values_counts_as_a_large_one(entrance: Any) -> None:
    values = [{"text": "x", "session_id": "crowd", "more": [0] * 9_000}]  # in 18 KB, but it takes 600 KB
    to_group(entrance, 1)
    entrance.pace.heard(stored(10))
    entrance.take_text(2, body=values, msg_type=MsgType.GROUP_TEXT)
    to_group(entrance, 3)
    assert entrance.refusals() == [(ErrorCode.TOO_MANY_REQUESTS, "m3", "s1")]


async def test_a_burst_to_a_large_group_is_counted_before_it_is_delivered(entrance: Any) -> None:
    to_group(entrance, 1)
    entrance.pace.heard(stored(PEOPLE // 5))
    for number in range(2, 12):
        to_group(entrance, number)
    assert len(entrance.published) == 5


async def test_a_burst_to_a_group_of_unknown_size_waits_for_the_store_and_is_counted_then(entrance: Any) -> None:
    for number in range(1, PACE):
        to_group(entrance, number)
    assert len(entrance.published) == AT_UNKNOWN_PRICE
    for number in range(1, AT_UNKNOWN_PRICE + 1):
        entrance.pace.heard(stored(PEOPLE // AT_UNKNOWN_PRICE, msg_id=f"m{number}"))
    entrance.take_text(PACE)
    assert len(entrance.published) == AT_UNKNOWN_PRICE
    assert {code for code, _, _ in entrance.refusals()} == {ErrorCode.TOO_MANY_REQUESTS}


async def test_the_stores_answers_make_room_for_messages_to_other_groups_of_unknown_size(entrance: Any) -> None:
    for number in range(1, PACE):
        to_group(entrance, number, session=f"group {number}")
        answer = stored(2, session=f"group {number}", msg_id=f"m{number}")
        entrance.pace.heard(answer if number % 2 else refusal(ErrorCode.RECALL_TOO_LATE, f"m{number}"))
    assert (len(entrance.published), entrance.refusals()) == (PACE - 1, [])


async def test_a_resend_to_a_group_of_unknown_size_does_not_count_again(entrance: Any) -> None:
    for _ in range(PACE):
        to_group(entrance, 1)
    assert (len(entrance.published), entrance.refusals()) == (PACE, [])


async def test_the_size_of_a_new_group_is_known_from_its_notice(entrance: Any) -> None:
    entrance.pace.heard(stored(PEOPLE // 2, MsgType.SESSION_ADDED))
    for number in range(1, PACE):
        to_group(entrance, number)
    assert len(entrance.published) == 2


async def test_small_groups_pairs_and_resends_are_not_slowed_down(entrance: Any) -> None:
    entrance.pace.heard(stored(3, session="lunch"))
    entrance.pace.heard(stored(PEOPLE, is_news=False))
    for number in range(PACE):
        to_group(entrance, number, session="lunch")
    assert (len(entrance.published), entrance.refusals()) == (PACE, [])


async def test_receipts_count_by_whom_they_are_told_and_not_by_the_size_of_the_group(entrance: Any) -> None:
    entrance.pace.heard(stored(PEOPLE - 100))
    for number in range(10):
        to_group(entrance, number, MsgType.READ)
        entrance.pace.heard(stored(1, MsgType.READ))
    assert (len(entrance.published), entrance.refusals()) == (10, [])


async def test_that_everybody_hears_who_read_makes_it_no_dearer_to_say_what_was_received(entrance: Any) -> None:
    entrance.pace.heard(stored(PEOPLE // 2, MsgType.READ))
    for number in range(10):
        to_group(entrance, number, MsgType.RECEIVED)
    to_group(entrance, 10, MsgType.READ)
    assert (len(entrance.published), entrance.refusals()) == (11, [])

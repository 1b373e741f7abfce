"""A message and its ledger: who has received and read it, told to those who may see it."""

from typing import Any

import pytest
from message_store.reading.ledger_service import ReadState
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

GROUP = "6f1c5e0a-9d6b-4a53-8a3e-0d6c1b7f2a10"


async def refusal(http: Any, me: str, path: str, **query: Any) -> tuple[int, str]:
    answer = await http.get(me, path, **query)
    return answer.status_code, answer.json()["code"]


UNKNOWN = (404, ErrorCode.MSG_ID_UNKNOWN)


async def test_a_message_is_told_with_who_has_received_and_read_it(http: Any, log: Any) -> None:
    await log.group(GROUP, "alice", "bob", "carol", "dave")
    seq = await log.say("alice", GROUP, msg_id="m-1")
    await log.receive("bob", seq, read=True)
    await log.receive("carol", seq)
    told = await http.read("alice", "messages/m-1")
    assert (told["seq"], told["stored_at"], told["kind"], told["session_id"]) == (seq, str(seq), "message", GROUP)
    assert (told["members"], told["delivered"], told["read"], told["next_cursor"]) == (3, 2, 1, None)
    assert told["receipts"] == [
        {"user_id": "bob", "delivered_at": str(seq + 1), "read_at": str(seq + 2)},
        {"user_id": "carol", "delivered_at": str(seq + 1), "read_at": None},
        {"user_id": "dave", "delivered_at": None, "read_at": None},
    ]


@pytest.mark.parametrize(
    ("state", "users"),
    [
        (ReadState.READ, ["bob"]),
        (ReadState.UNREAD, ["carol", "dave"]),
        (ReadState.UNDELIVERED, ["dave"]),
    ],
)
async def test_the_ledger_can_be_narrowed(http: Any, log: Any, state: ReadState, users: list[str]) -> None:
    await log.group(GROUP, "alice", "bob", "carol", "dave")
    seq = await log.say("alice", GROUP, msg_id="m-1")
    await log.receive("bob", seq, read=True)
    await log.receive("carol", seq)
    told = await http.read("alice", "messages/m-1", state=state)
    assert [line["user_id"] for line in told["receipts"]] == users
    assert (told["members"], told["delivered"], told["read"]) == (3, 2, 1)


async def test_the_receivers_are_those_who_were_in_it_then(http: Any, log: Any) -> None:
    await log.group(GROUP, "alice", "bob", "carol")
    await log.change(GROUP, actor="alice", removed=("carol",))
    await log.say("alice", GROUP, msg_id="m-1")
    await log.change(GROUP, actor="alice", added=("dave",), removed=("bob",))
    told = await http.read("bob", "messages/m-1")
    assert [line["user_id"] for line in told["receipts"]] == ["bob"]
    assert await refusal(http, "carol", "messages/m-1") == UNKNOWN
    assert await refusal(http, "dave", "messages/m-1") == UNKNOWN


async def test_a_large_group_is_paged(http: Any, log: Any) -> None:
    members = [f"user{n:03}" for n in range(250)]
    await log.group(GROUP, "alice", *members)
    await log.say("alice", GROUP, msg_id="m-1")
    found: list[str] = []
    query: dict[str, str] = {}
    while query.get("cursor", "") is not None:
        page = await http.read("alice", "messages/m-1", limit=100, **query)
        found += [line["user_id"] for line in page["receipts"]]
        assert page["members"] == 250
        query = {"cursor": page["next_cursor"]}
    assert found == members


async def test_of_several_messages_with_one_id_the_newest_visible_one_is_meant(http: Any, log: Any) -> None:
    first = await log.direct("bob", "alice", msg_id="1")
    second = await log.direct("carol", "alice", msg_id="1")
    await log.direct("dave", "bob", msg_id="1")
    assert (await http.read("alice", "messages/1"))["seq"] == second
    told = await http.read("alice", "messages/1", sender="BOB")
    assert (told["seq"], told["conversation"], told["session_id"]) == (first, "bob", None)
    assert await refusal(http, "alice", "messages/1", sender="dave") == UNKNOWN


async def test_a_recalled_message_is_a_tombstone_and_keeps_its_ledger(http: Any, log: Any) -> None:
    seq = await log.direct("bob", "alice", msg_id="m-1")
    await log.receive("alice", seq, read=True)
    await log.recall(seq)
    told = await http.read("bob", "messages/m-1")
    assert (told["recalled"], told["body"], told["read"]) == (True, [], 1)


async def test_receipts_are_no_messages_and_an_id_may_hold_any_text(http: Any, log: Any) -> None:
    await log.direct("bob", "alice", MsgType.READ, msg_id="receipt")
    seq = await log.direct("bob", "alice", msg_id="a/b ?#你")
    assert await refusal(http, "alice", "messages/receipt") == UNKNOWN
    assert (await http.read("alice", "messages/a%2Fb%20%3F%23你"))["seq"] == seq


@pytest.mark.parametrize(
    ("path", "query", "refused"),
    [
        ("messages/unknown", {}, UNKNOWN),
        ("messages/%00", {}, UNKNOWN),
        ("messages/" + "x" * 65, {}, (422, ErrorCode.FIELD_INVALID)),
        ("messages/m", {"sender": "a b"}, (422, ErrorCode.FIELD_INVALID)),
        ("messages/m", {"cursor": "\x00"}, (422, ErrorCode.FIELD_INVALID)),
        ("messages/m", {"state": "seen"}, (422, ErrorCode.FIELD_INVALID)),
        ("messages/m", {"limit": 1001}, (422, ErrorCode.FIELD_INVALID)),
    ],
)
async def test_a_wrong_question_is_refused(
    http: Any, path: str, query: dict[str, Any], refused: tuple[int, str]
) -> None:
    assert await refusal(http, "alice", path, **query) == refused

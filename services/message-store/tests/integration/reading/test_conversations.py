"""The list of conversations: newest first, each with what of it its reader may see and has not read."""

from typing import Any

import pytest
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

GROUP = "6f1c5e0a-9d6b-4a53-8a3e-0d6c1b7f2a10"


COPIES = """
    INSERT INTO messages SELECT nextval('message_seq'), conversation_id, sender, recipient, audience, n::text,
        msg_type, is_chat, version, body, msg_time, location, stored_at, recalled_at
    FROM messages, generate_series(1, $2) AS n WHERE msg_id = $1"""


async def entries(http: Any, me: str, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await http.read(me, "conversations", **query))["items"]
    return items


async def entry(http: Any, me: str) -> dict[str, Any]:
    (only,) = await entries(http, me)
    return only


async def names(http: Any, me: str) -> list[str]:
    return [one["conversation"] for one in await entries(http, me)]


async def test_people_and_sessions_are_listed_by_their_newest_message(http: Any, log: Any) -> None:
    await log.direct("bob", "alice")
    await log.group(GROUP, "alice", "bob", name="lunch")
    await log.direct("alice", "carol")
    await log.direct("bob", "carol")
    assert await names(http, "alice") == ["carol", GROUP, "bob"]
    last = await log.say("bob", GROUP)
    await log.say("bob", GROUP, MsgType.READ)
    newest, *_ = await entries(http, "alice")
    assert (newest["conversation"], newest["session_id"], newest["session_name"]) == (GROUP, GROUP, "lunch")
    assert (newest["last"]["seq"], newest["left"], newest["deleted"]) == (last, False, False)


async def test_what_is_between_two_people_is_named_by_the_other_one(http: Any, log: Any) -> None:
    seq = await log.direct("bob", "alice", msg_id="m-1")
    one = await entry(http, "alice")
    assert (one["conversation"], one["session_id"], one["session_name"]) == ("bob", None, None)
    assert (one["last"]["seq"], one["last"]["msg_id"]) == (seq, "m-1")
    assert (await entry(http, "bob"))["conversation"] == "alice"


async def test_unread_are_the_messages_of_others_behind_the_read_one(http: Any, log: Any) -> None:
    first, second, third = [await log.direct("bob", "alice") for _ in range(3)]
    await log.direct("alice", "bob")
    await log.direct("bob", "alice", MsgType.READ)
    assert (await entry(http, "alice"))["unread"] == 3
    await log.receive("alice", first, read=True)
    assert [(await entry(http, "alice"))[key] for key in ("unread", "unread_capped", "read_seq")] == [2, False, first]
    await log.recall(second)
    assert (await entry(http, "alice"))["unread"] == 1
    await log.receive("alice", third, read=True)
    assert (await entry(http, "alice"))["unread"] == 0
    assert (await entry(http, "bob"))["unread"] == 1


async def test_counting_ends_at_a_thousand(http: Any, log: Any) -> None:
    await log.direct("bob", "alice", msg_id="m")
    await log.connection.execute(COPIES, "m", 999)
    assert [(await entry(http, "alice"))[key] for key in ("unread", "unread_capped")] == [1000, False]
    await log.connection.execute(COPIES, "m", 1)
    assert [(await entry(http, "alice"))[key] for key in ("unread", "unread_capped")] == [1000, True]


async def test_unread_are_counted_among_the_newest_messages(http: Any, log: Any) -> None:
    await log.direct("bob", "alice")
    await log.direct("alice", "bob", msg_id="own")
    await log.connection.execute(COPIES, "own", 4998)
    assert (await entry(http, "alice"))["unread"] == 1
    await log.connection.execute(COPIES, "own", 1)
    assert [(await entry(http, "alice"))[key] for key in ("unread", "unread_capped")] == [0, False]


async def test_the_newest_messages_are_those_of_the_last_time_in_a_session(http: Any, log: Any) -> None:
    await log.group(GROUP, "bob", "alice")
    await log.say("alice", GROUP, msg_id="own")
    await log.connection.execute(COPIES, "own", 4999)
    await log.change(GROUP, actor="bob", removed=("alice",))
    await log.change(GROUP, actor="bob", added=("alice",))
    await log.say("bob", GROUP)
    assert (await entry(http, "alice"))["unread"] == 1


async def test_a_recalled_last_message_is_a_tombstone(http: Any, log: Any) -> None:
    await log.recall(await log.direct("bob", "alice"))
    last = (await entry(http, "alice"))["last"]
    assert (last["recalled"], last["body"]) == (True, [])


async def test_a_session_that_one_left_stays_as_it_was_then(http: Any, log: Any) -> None:
    await log.group(GROUP, "bob", "alice", name="lunch")
    seen = await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", removed=("alice",), name="lunch")
    await log.direct("alice", "carol")
    await log.say("bob", GROUP)
    await log.rename(GROUP, "dinner without alice")
    await log.change(GROUP, MsgType.SESSION_DELETED, actor="bob", removed=("bob",), name="dinner without alice")
    _, left = await entries(http, "alice")
    assert (left["session_name"], left["last"]["seq"], left["unread"]) == ("lunch", seen, 1)
    assert (left["left"], left["deleted"]) == (True, False)
    assert [(await entry(http, "bob"))[key] for key in ("session_name", "left", "deleted")] == [
        "dinner without alice", True, True,
    ]  # fmt: skip


async def test_who_joins_late_or_again_sees_no_message_of_the_time_without_him(http: Any, log: Any) -> None:
    await log.group(GROUP, "bob")
    await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", added=("alice",))
    assert [(await entry(http, "alice"))[key] for key in ("last", "unread")] == [None, 0]
    inside = await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", removed=("alice",))
    await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", added=("alice",))
    back = await entry(http, "alice")
    assert (back["last"]["seq"], back["unread"], back["left"]) == (inside, 1, False)


async def test_pages_show_each_conversation_once_whatever_is_written_meanwhile(http: Any, log: Any) -> None:
    for n in range(7):
        await log.direct(f"user{n}", "alice")
    page = await http.read("alice", "conversations", limit=3)
    found = page["items"]
    await log.direct("user0", "alice")
    await log.direct("user5", "alice")
    while page["next_cursor"]:
        page = await http.read("alice", "conversations", limit=3, cursor=page["next_cursor"])
        found += page["items"]
    assert [one["conversation"] for one in found] == [f"user{n}" for n in (6, 5, 4, 3, 2, 1)]
    assert (await names(http, "alice"))[:2] == ["user5", "user0"]  # moved to the top: sync tells of it


async def test_large_last_messages_make_short_pages(http: Any, log: Any) -> None:
    for n in range(3):
        await log.direct(f"user{n}", "alice", body=[{"text": "x" * 600_000}])
    page = await http.read("alice", "conversations")
    assert [one["conversation"] for one in page["items"]] == ["user2", "user1"]
    assert [one["conversation"] for one in await entries(http, "alice", cursor=page["next_cursor"])] == ["user0"]


async def test_a_new_device_syncs_from_where_the_list_ends(http: Any, log: Any) -> None:
    assert await http.read("alice", "conversations") == {"items": [], "next_cursor": None, "sync_from": 0}
    await log.direct("bob", "alice")
    newest = await log.direct("bob", "carol")
    sync_from = (await http.read("alice", "conversations"))["sync_from"]
    assert sync_from == newest
    later = await log.direct("bob", "alice")
    assert [one["seq"] for one in (await http.read("alice", "sync", after=sync_from))["items"]] == [later]


async def test_what_comes_in_between_two_pages_is_told_from_the_first_one_on(http: Any, log: Any) -> None:
    await log.direct("bob", "alice")
    await log.direct("carol", "alice")
    first = await http.read("alice", "conversations", limit=1)
    moved_up = await log.direct("bob", "alice")
    second = await http.read("alice", "conversations", limit=1, cursor=first["next_cursor"])
    assert second["items"] == []
    told = await http.read("alice", "sync", after=first["sync_from"])
    assert [one["seq"] for one in told["items"]] == [moved_up]


@pytest.mark.parametrize(
    "query", [{"cursor": "x"}, {"cursor": "-1"}, {"cursor": "9" * 19}, {"limit": 0}, {"limit": 201}]
)
async def test_a_wrong_cursor_or_limit_is_refused(http: Any, query: dict[str, Any]) -> None:
    answer = await http.get("alice", "conversations", **query)
    assert (answer.status_code, answer.json()["code"]) == (422, ErrorCode.FIELD_INVALID)

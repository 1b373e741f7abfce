"""What readers see of a log whose beginning has been removed: less, and nothing that fails."""

from collections.abc import Callable
from typing import Any

import asyncpg
from tlim_admin.retention.log_tables import Log
from tlim_admin.retention.messages import remove_messages
from tlim_protocol.registry import MsgType

GROUP = "0d9f8a52-6ee5-4d0d-9d0f-0f4bb0c0a001"


async def remove_before(seq: int, database_url: str, owner_url: Callable[[str, str], str]) -> None:
    """Remove what the log holds before a seq; in these tests a row's time is its seq."""
    owner = await asyncpg.connect(owner_url("message_store", database_url).replace("+asyncpg", ""))
    await owner.execute("UPDATE publication SET published_seq = $1, indexed_seq = $1", seq)
    await remove_messages(Log(owner), seq)
    await owner.close()


async def test_history_sync_and_lists_begin_with_what_is_kept(
    http: Any, log: Any, database_url: str, owner_url: Callable[[str, str], str]
) -> None:
    old = await log.direct("bob", "alice", msg_id="old")
    await log.receive("alice", old, read=True)
    await log.direct("carol", "alice")
    kept = [await log.direct("carol", "alice"), await log.direct("alice", "carol")]
    listed = await http.read("alice", "conversations")
    await remove_before(kept[0], database_url, owner_url)

    assert [item["seq"] for item in (await http.read("alice", "sync"))["items"]] == kept
    history = await http.read("alice", "conversations/carol/messages")
    assert [message["seq"] for message in history["messages"]] == kept[::-1]
    assert (await http.read("alice", "conversations/bob/messages"))["messages"] == []
    assert (await http.read("alice", "conversations/carol/messages", before=kept[0]))["messages"] == []
    assert (await http.get("alice", "messages/old")).status_code == 404
    still_listed = await http.read("alice", "conversations")
    names = [[item["conversation"] for item in page["items"]] for page in (listed, still_listed)]
    assert names == [["carol", "bob"], ["carol", "bob"]]
    assert still_listed["items"][1]["last"] is None
    assert still_listed["items"][0]["unread"] == 1


async def test_who_left_long_ago_does_not_see_what_became_of_the_session_without_him(
    http: Any, log: Any, database_url: str, owner_url: Callable[[str, str], str]
) -> None:
    await log.group(GROUP, "bob", "alice", name="lunch")
    await log.say("bob", GROUP)
    await log.change(GROUP, actor="bob", removed=("alice",), name="lunch")
    name = "dinner without alice"
    await log.rename(GROUP, name)
    deleted = await log.change(GROUP, MsgType.SESSION_DELETED, actor="bob", removed=("bob",), name=name)
    await remove_before(deleted, database_url, owner_url)
    (left,) = (await http.read("alice", "conversations"))["items"]
    assert [left[key] for key in ("conversation", "session_name", "left", "deleted")] == [GROUP, None, True, False]
    (stayed,) = (await http.read("bob", "conversations"))["items"]
    assert [stayed[key] for key in ("session_name", "left", "deleted")] == [name, True, True]

"""Sync: everything that concerns somebody, each thing once, in the order of the log, and never a gap."""

import asyncio
from typing import Any

import asyncpg
import pytest
from message_store.reading.sync_service import LogKind
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

GROUP = "6f1c5e0a-9d6b-4a53-8a3e-0d6c1b7f2a10"


async def catch_up(http: Any, me: str, after: int = 0, **query: int) -> list[dict[str, Any]]:
    """All pages after a cursor."""
    items: list[dict[str, Any]] = []
    more = True
    while more:
        page = await http.read(me, "sync", after=after, **query)
        assert page["items"] or not page["more"]
        items, after, more = items + page["items"], page["next"], page["more"]
    return items


async def seqs(http: Any, me: str, after: int = 0, **query: int) -> list[int]:
    return [item["seq"] for item in await catch_up(http, me, after, **query)]


async def test_what_is_mine_comes_in_the_order_of_the_log_and_nothing_else(http: Any, log: Any) -> None:
    to_me = await log.direct("bob", "alice")
    await log.direct("bob", "carol")
    by_me = await log.direct("alice", "bob")
    made = await log.group(GROUP, "bob", "alice")
    said = await log.say("bob", GROUP)
    mine = await log.say("alice", GROUP)
    await log.tell("carol", GROUP, "bob")
    received = await log.tell("carol", GROUP, "alice", "bob")
    read = await log.say("bob", GROUP, MsgType.READ)
    recalled = await log.direct("bob", "alice", MsgType.RECALL)
    await log.group("another group", "bob", "carol")
    items = await catch_up(http, "alice")
    assert [(item["seq"], item["kind"], item["conversation"]) for item in items] == [
        (to_me, LogKind.MESSAGE, "bob"),
        (by_me, LogKind.MESSAGE, "bob"),
        (made, LogKind.NOTICE, GROUP),
        (said, LogKind.MESSAGE, GROUP),
        (mine, LogKind.MESSAGE, GROUP),
        (received, LogKind.RECEIPT, GROUP),
        (read, LogKind.RECEIPT, GROUP),
        (recalled, LogKind.RECALL, "bob"),
    ]


async def test_an_item_has_the_fields_of_the_envelope(http: Any, log: Any) -> None:
    seq = await log.direct("bob", "alice", body=[{"text": "\x00 你"}], msg_id="m-1")
    assert (await http.read("alice", "sync"))["items"] == [
        {
            "seq": seq, "stored_at": str(seq), "recalled": False, "kind": LogKind.MESSAGE,
            "conversation": "bob", "session_id": None,
            "compress": "0", "encode": "1", "encrypt": "0", "version": "2.0.0", "from": "bob", "to": "alice",
            "msg_id": "m-1", "msg_type": MsgType.TEXT, "msg_time": "0", "body": [{"text": "\x00 你"}],
        }
    ]  # fmt: skip


async def test_a_notice_is_from_who_did_it(http: Any, log: Any) -> None:
    await log.group(GROUP, "bob", "alice")
    (notice,) = await catch_up(http, "alice")
    assert (notice["from"], notice["to"], notice["kind"]) == ("bob", None, LogKind.NOTICE)


async def test_only_who_was_just_added_finds_the_whole_list_in_the_notice(http: Any, log: Any) -> None:
    await log.group(GROUP, "bob")
    whole = [{"user_id": "bob"}, {"user_id": "alice"}]
    await log.change(GROUP, actor="bob", added=("alice",), subscribers=whole)
    told = {me: (await catch_up(http, me))[-1]["body"][0] for me in ("alice", "bob")}
    assert (told["alice"]["subscribers"], "subscribers" in told["bob"]) == (whole, False)
    assert {(one["subscribers_count"], one["added"][0]["user_id"]) for one in told.values()} == {(2, "alice")}


async def test_only_the_time_of_membership_is_told_with_the_notices_of_joining_and_leaving(http: Any, log: Any) -> None:
    await log.group(GROUP, "bob")
    await log.say("bob", GROUP)
    joined = await log.change(GROUP, actor="bob", added=("alice",))
    inside = await log.say("bob", GROUP)
    left = await log.change(GROUP, actor="bob", removed=("alice",))
    await log.say("bob", GROUP)
    again = await log.change(GROUP, actor="bob", added=("alice",))
    later = await log.say("bob", GROUP)
    assert await seqs(http, "alice") == [joined, inside, left, again, later]
    assert await seqs(http, "alice", after=inside, limit=1) == [left, again, later]


async def test_a_device_that_was_away_for_a_month_gets_each_thing_once_page_by_page(http: Any, log: Any) -> None:
    groups = [f"group {n}" for n in range(5)]
    expected = [await log.group(one, "bob", "alice") for one in groups]
    for turn in range(120):
        expected.append(await log.say(("bob", "alice")[turn % 2], groups[turn % 5]))
        expected.append(await log.direct("bob", "alice", (MsgType.TEXT, MsgType.READ)[turn % 2]))
    assert await seqs(http, "alice", limit=7) == expected
    assert await seqs(http, "alice", after=expected[99]) == expected[100:]
    assert await http.read("alice", "sync", after=expected[-1]) == {"items": [], "next": expected[-1], "more": False}


@pytest.mark.parametrize("limit", range(1, 11))
async def test_one_busy_group_is_told_to_its_end_in_pages_of_any_size(http: Any, log: Any, limit: int) -> None:
    expected = [await log.group(GROUP, "bob", "alice"), *[await log.say("bob", GROUP) for _ in range(9)]]
    assert await seqs(http, "alice", limit=limit) == expected


async def test_a_recalled_message_is_a_tombstone(http: Any, log: Any) -> None:
    seq = await log.direct("bob", "alice")
    await log.recall(seq)
    (item,) = await catch_up(http, "alice")
    assert (item["seq"], item["recalled"], item["body"]) == (seq, True, [])


async def test_large_messages_make_short_pages_that_are_never_empty(http: Any, log: Any) -> None:
    body = [{"text": "x" * 600_000}]
    expected = [await log.direct("bob", "alice", body=body) for _ in range(5)]
    page = await http.read("alice", "sync")
    assert [item["seq"] for item in page["items"]] == expected[:2]
    assert (page["next"], page["more"]) == (expected[1], True)
    assert await seqs(http, "alice") == expected
    alone = await log.direct("bob", "alice", body=[{"text": "x" * 2_000_000}])
    assert await seqs(http, "alice", after=expected[-1]) == [alone]


async def test_a_message_that_commits_late_is_not_skipped(
    http: Any, log: Any, database_url: str, eventually: Any
) -> None:
    """Two stores at once: the second cannot get a seq before the first has committed."""
    from message_store.locks import SEQ_LOCK  # noqa: PLC0415 - the lock is what is tested

    other = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    late, early = log, type(log)(other)
    transaction = late.connection.transaction()
    await transaction.start()
    await late.connection.execute("SELECT pg_advisory_xact_lock($1)", SEQ_LOCK)
    first = await late.direct("bob", "alice", msg_id="late")

    async def write_early() -> int:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock($1)", SEQ_LOCK)
            seq: int = await early.direct("carol", "alice", msg_id="early")
            return seq

    second = asyncio.create_task(write_early())

    async def waits() -> None:
        assert await late.connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")

    await eventually(waits)
    cursor = (await http.read("alice", "sync"))["next"]
    assert cursor == 0
    await transaction.commit()
    expected = [first, await second]
    assert await seqs(http, "alice", after=cursor) == expected
    await other.close()


@pytest.mark.parametrize(
    "query", [{"after": -1}, {"after": 2**63}, {"after": "x"}, {"limit": 0}, {"limit": 501}, {"limit": "all"}]
)
async def test_a_wrong_cursor_or_limit_is_refused(http: Any, query: dict[str, Any]) -> None:
    answer = await http.get("alice", "sync", **query)
    assert (answer.status_code, answer.json()["code"]) == (422, ErrorCode.FIELD_INVALID)


async def test_without_a_token_nothing_is_told(http: Any) -> None:
    assert (await http.client.get("/v1/sync")).status_code == 401

"""Sessions that several stores change: no store plans with members that another store has changed since."""

import asyncio
import random
from typing import Any

import pytest
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage
from tlim_protocol.registry import MsgType

VERSION = "SELECT session_version FROM conversations WHERE conversation_id = 's1'"
MEMBERS = "SELECT user_id FROM members WHERE conversation_id = 's1' AND left_seq IS NULL ORDER BY 1"


@pytest.fixture
def to_group(accepted: Any) -> Any:
    def message(msg_id: str, sender: str = "alice", session_id: str = "s1") -> Any:
        body = [{"session_id": session_id, "text": f"text of {msg_id}"}]
        return accepted(msg_id, sender, None, MsgType.GROUP_TEXT, body=body)

    return message


async def recipients_of(world: Any, msg_id: str) -> list[str]:
    (event,) = [one for one in await world.deliveries() if one.envelope.msg_id == msg_id]
    return sorted(event.recipients)


async def test_a_store_that_does_not_know_of_the_newest_change_does_not_go_back_behind_it(
    world: Any, new_store: Any, session_event: Any
) -> None:
    one, other = await new_store(), await new_store()
    await one.record(session_event("s1", 1, "alice", "bob"))
    await other.record(session_event("s1", 3, "alice", "bob", "carol", "dave"))
    assert await one.record(session_event("s1", 2, "alice", "bob", "carol")) == [None]
    assert await world.sql(VERSION) == [(3,)]
    assert await world.sql(MEMBERS) == [("alice",), ("bob",), ("carol",), ("dave",)]
    assert [event.envelope.msg_id for event in await world.deliveries()] == ["s1:1", "s1:3"]


@pytest.mark.parametrize("is_meanwhile", [False, True])
async def test_a_message_goes_to_the_members_that_another_store_has_just_noted(
    *, world: Any, new_store: Any, session_event: Any, to_group: Any, is_meanwhile: bool
) -> None:
    one, other = await new_store(), await new_store()
    await one.record(session_event("s1", 1, "alice", "bob"), to_group("m1"))
    change = session_event("s1", 2, "alice", "carol")
    if is_meanwhile:
        one.archive.meanwhile = lambda: other.record(change)
    else:
        await other.record(change)
    assert await one.record(to_group("m2")) == [None]
    assert await recipients_of(world, "m1") == ["bob"]
    assert await recipients_of(world, "m2") == ["carol"]


@pytest.mark.parametrize("is_meanwhile", [False, True])
async def test_a_member_whom_another_store_has_just_seen_leaving_may_not_write(
    *, world: Any, new_store: Any, session_event: Any, to_group: Any, is_meanwhile: bool
) -> None:
    one, other = await new_store(), await new_store()
    await one.record(session_event("s1", 1, "alice", "bob"))
    change = session_event("s1", 2, "alice")
    world.directory.sessions["s1"] = change
    if is_meanwhile:
        one.archive.meanwhile = lambda: other.record(change)
    else:
        await other.record(change)
    assert await one.record(to_group("m1", "bob")) == [None]
    (refused,) = [event for event in await world.out() if isinstance(event, RejectedMessage)]
    assert (refused.msg_id, refused.code) == ("m1", ErrorCode.NOT_ALLOWED)


async def test_a_session_that_another_store_has_just_made_is_known(
    *, world: Any, new_store: Any, session_event: Any, to_group: Any
) -> None:
    one, other = await new_store(), await new_store()
    one.archive.meanwhile = lambda: other.record(session_event("s1", 1, "alice", "bob"))
    assert await one.record(to_group("m1")) == [None]
    assert await recipients_of(world, "m1") == ["bob"]
    assert not world.directory.asked_sessions


async def test_nobody_forwards_a_file_out_of_a_message_that_another_store_has_just_seen_recalled(
    world: Any, new_store: Any, accepted: Any
) -> None:
    one, other = await new_store(), await new_store()
    world.directory.owners["f" * 32] = "alice"
    body = [{"file_id": "f" * 32, "title": "pay.xls"}]
    await other.record(accepted("m1", msg_type=MsgType.FILE, body=body))
    recall = accepted("m2", msg_type=MsgType.RECALL, body=[{"msg_id": "m1"}])
    one.archive.meanwhile = lambda: other.record(recall)
    assert await one.record(accepted("m3", "bob", "carol", MsgType.FILE, body=body)) == [None]
    (refused,) = [event for event in await world.out() if isinstance(event, RejectedMessage)]
    assert (refused.msg_id, refused.code) == ("m3", ErrorCode.FILE_UNKNOWN)


async def test_stores_that_change_sessions_and_write_to_them_at_random_agree_with_the_log(
    world: Any, new_store: Any, session_event: Any, to_group: Any
) -> None:
    """Each change comes to both stores, as to the store of the shard and to a store that catches up."""
    stores = [await new_store(), await new_store()]
    dice = random.Random(11)  # noqa: S311 - the same histories in every run
    people = ("bob", "carol", "dave", "erin")
    changes = {
        name: [session_event(name, 1, "alice", "bob", "carol"), *(
            session_event(name, version, "alice", *dice.sample(people, dice.randint(1, 4))) for version in range(2, 12)
        )]
        for name in ("s1", "s2")
    }  # fmt: skip

    async def write(number: int) -> None:
        for version in range(11):
            for name, events in changes.items():
                known = events[max(version - dice.randint(0, 3), 0)]
                await stores[number].record(known, to_group(f"{name}-{number}-{version}", session_id=name))

    await asyncio.gather(write(0), write(1))
    rows = await world.sql("SELECT * FROM messages ORDER BY seq")
    assert len([row for row in rows if row["is_chat"]]) == 44
    told = {event.envelope.msg_id: event for event in await world.deliveries()}
    for name, events in changes.items():
        members: list[str] = []
        newest = 0
        for row in [row for row in rows if row["conversation_id"] == name]:
            if row["is_chat"]:
                assert sorted(told[row["msg_id"]].recipients) == sorted({*members} - {"alice"})
                continue
            version = int(row["msg_id"].split(":")[1])
            assert version > newest
            newest, members = version, events[version - 1].subscribers
        kept = await world.sql(
            "SELECT session_version, array(SELECT user_id FROM members WHERE members.conversation_id = $1 AND "
            "left_seq IS NULL ORDER BY 1) FROM conversations WHERE conversation_id = $1", name
        )  # fmt: skip
        assert kept == [(newest, sorted(members))]

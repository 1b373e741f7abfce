"""Groups on real tables: create and write, join and leave, late events, repair, and two writers at once."""

import asyncio
from typing import Any

import asyncpg
from message_store.archive_repository import Archive
from message_store.plan import Plan
from message_store.values import Known
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_in


def to_group(accepted: Any, msg_id: str, sender: str = "alice", session_id: str = "s1") -> Any:
    body = [{"session_id": session_id, "text": f"text of {msg_id}"}]
    return accepted(msg_id, sender, None, MsgType.GROUP_TEXT, body=body)


async def test_a_session_is_made_written_to_and_changed_in_the_order_of_the_stream(
    world: Any, accepted: Any, session_event: Any
) -> None:
    await world.announce(session_event("s1", 1, "alice", "bob", "carol"))
    await world.send(to_group(accepted, "m1"))
    await world.announce(session_event("s1", 2, "alice", "carol"))
    await world.send(to_group(accepted, "m2"))
    async with world.running():
        await world.settled(4)
    assert [event.recipients for event in await world.out()] == [
        ["alice", "bob", "carol"], ["bob", "carol"], ["alice", "bob", "carol"], ["carol"],
    ]  # fmt: skip
    rows = await world.rows()
    assert [(row["sender"], row["msg_id"], row["audience"], row["is_chat"]) for row in rows] == [
        ("", "s1:1", 2, False), ("alice", "m1", 2, True), ("", "s1:2", 2, False), ("alice", "m2", 2, True),
    ]  # fmt: skip
    members = await world.sql("SELECT user_id, joined_seq, left_seq FROM members ORDER BY user_id")
    first, second = rows[0]["seq"], rows[2]["seq"]
    assert [tuple(row) for row in members] == [("alice", first, None), ("bob", first, second), ("carol", first, None)]
    ((version, last_seq),) = await world.sql("SELECT session_version, last_seq FROM conversations")
    assert (version, last_seq) == (2, rows[3]["seq"])


async def test_a_group_is_known_after_a_restart(world: Any, accepted: Any, session_event: Any) -> None:
    async with world.running():
        await world.announce(session_event("s1", 1, "alice", "bob"))
        await world.settled(1)
    async with world.running():
        await world.send(to_group(accepted, "m1", "bob"))
        await world.settled(2)
    assert (await world.deliveries())[-1].recipients == ["alice"]
    assert not world.directory.asked_sessions


async def test_a_session_that_everybody_has_left_is_still_known(
    world: Any, accepted: Any, session_event: Any, eventually: Any
) -> None:
    world.directory.sessions["s1"] = session_event("s1", 2)
    async with world.running():
        await world.announce(session_event("s1", 1, "alice"), session_event("s1", 2))
        await world.settled(2)
    async with world.running():
        await world.send(to_group(accepted, "m1"))

        async def refused() -> None:
            _, _, event = await world.out()
            assert event.code is ErrorCode.NOT_ALLOWED

        await eventually(refused)
        await world.settled(2)


async def test_a_first_message_does_not_wait_for_the_news_of_its_session(
    world: Any, accepted: Any, session_event: Any
) -> None:
    world.directory.sessions["s1"] = session_event("s1", 1, "alice", "bob")
    async with world.running():
        await world.send(to_group(accepted, "m1"))
        await world.settled(2)
        await world.announce(session_event("s1", 1, "alice", "bob"))
        await world.settled(2)
    assert [event.recipients for event in await world.out()] == [["alice", "bob"], ["bob"]]


async def test_strangers_and_deleted_sessions_are_refused(
    world: Any, accepted: Any, session_event: Any, eventually: Any
) -> None:
    deleted = session_event("s1", 2, "alice", "bob", msg_type=MsgType.SESSION_DELETED, deleted=True)
    async with world.running():
        await world.announce(session_event("s1", 1, "alice", "bob"))
        await world.send(to_group(accepted, "m1", "mallory"))
        await world.announce(deleted)
        await world.send(to_group(accepted, "m2"), to_group(accepted, "m3", session_id="nowhere"))

        async def refused() -> None:
            _, first, _, second, third = await world.out()
            assert [first.code, second.code, third.code] == [
                ErrorCode.SESSION_UNKNOWN, ErrorCode.SESSION_UNKNOWN, ErrorCode.SESSION_UNKNOWN,
            ]  # fmt: skip

        await eventually(refused)
        await world.settled(2)
    ((deleted_at,),) = await world.sql("SELECT deleted_at FROM conversations")
    assert deleted_at == deleted.at


async def test_with_session_api_away_known_groups_go_on_and_the_rest_shall_try_again(
    world: Any, accepted: Any, session_event: Any
) -> None:
    await world.announce(session_event("s1", 1, "alice", "bob"))
    await world.stop_directory()
    await world.send(to_group(accepted, "m1"), to_group(accepted, "m2", session_id="s2"), to_group(accepted, "m3"))
    async with world.running():
        await world.settled(3)
    told = await world.out()
    assert [event.recipients for event in told if isinstance(event, StoredMessage)] == [
        ["alice", "bob"],
        ["bob"],
        ["bob"],
    ]
    assert [event.code for event in told if isinstance(event, RejectedMessage)] == [ErrorCode.UNAVAILABLE]


async def test_a_group_of_ten_thousand_is_one_row_and_one_event(world: Any, accepted: Any, session_event: Any) -> None:
    people = [f"user{number:05}" for number in range(10_000)]
    await world.announce(session_event("s1", 1, *people))
    async with world.running():
        await world.send(to_group(accepted, "m1", people[0]))
        await world.settled(2)
    notice, message = await world.out()
    assert notice.recipients == people
    assert message.recipients == people[1:]


async def test_what_was_committed_for_a_group_is_published_to_who_was_in_it_then(
    world: Any, accepted: Any, session_event: Any
) -> None:
    items = [
        session_event("s1", 1, "alice", "bob", "carol"),
        to_group(accepted, "m1"),
        session_event("s1", 2, "alice", "bob"),
        to_group(accepted, "m2"),
    ]
    await commit_only(world, items)
    async with world.running():
        await world.send(to_group(accepted, "m3", "bob"))
        await world.settled(5)
    assert [(event.envelope.msg_from, event.recipients) for event in await world.out()] == [
        ("alice", ["alice", "bob", "carol"]),
        ("alice", ["bob", "carol"]),
        ("alice", ["alice", "bob", "carol"]),
        ("alice", ["bob"]),
        ("bob", ["alice"]),
    ]


async def test_what_is_no_session_event_goes_to_the_dead_letters(world: Any, session_event: Any) -> None:
    event = session_event("s1", 1, "alice", "bob")
    wrong = event.model_copy(update={"msg_type": MsgType.TEXT})
    subject = subject_in(MsgType.SESSION_ADDED, "s1")
    await world.session_api.publish(subject, b"{}", "bad1")
    await world.session_api.publish(subject, wrong.to_bytes(), "bad2")
    await world.session_api.publish(subject, event.model_copy(update={"session_name": "nul \x00"}).to_bytes(), "bad3")
    await world.announce(event)
    async with world.running():
        await world.settled(1)
    assert len(await world.dead()) == 3


async def test_two_writers_at_once_never_make_a_reader_skip(world: Any, accepted: Any) -> None:
    dsn = world.database_url.replace("+asyncpg", "")
    first, second, reader = [await asyncpg.connect(dsn) for _ in range(3)]
    done = asyncio.Event()

    async def write(connection: Any, sender: str, receiver: str) -> None:
        archive = Archive(connection)
        for number in range(100):
            async with archive.transaction():
                place = accepted(f"{sender}{number}", sender, receiver).envelope.conversation_id
                known = Known(conversations=await archive.conversations([place]), users=[receiver])
                plan = Plan(known, await archive.draw(1), newest=0, now=number, recall_window=0, read_to_all=200)
                plan.run([accepted(f"{sender}{number}", sender, receiver)])
                await archive.write(plan.writes)

    async def read() -> list[int]:
        seen: list[int] = []
        is_last = False
        while True:
            page = await reader.fetch("SELECT seq FROM messages WHERE seq > $1 ORDER BY seq", seen[-1] if seen else 0)
            seen += [row[0] for row in page]
            if is_last:
                return seen
            is_last = done.is_set()

    reading = asyncio.create_task(read())
    await asyncio.gather(write(first, "alice", "bob"), write(second, "carol", "dave"))
    done.set()
    assert await reading == [row["seq"] for row in await world.rows()]
    assert len(await reading) == 200
    for connection in (first, second, reader):
        await connection.close()


async def commit_only(world: Any, items: Any) -> None:
    """What a store does that is killed right after the commit."""
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    archive = Archive(connection)
    async with archive.transaction():
        seqs = await archive.draw(len(items))
        plan = Plan(Known(), seqs, newest=0, now=1_700_000_000_000, recall_window=0, read_to_all=200)
        plan.run(items)
        await archive.write(plan.writes)
    await connection.close()

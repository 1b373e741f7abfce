"""Who may download a file because of a message: who may see one that carries it and is not recalled."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from message_store.reading.file_access_repository import FileAccess
from tlim_protocol.registry import MsgType
from tlim_runtime.database import Database


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, 1)
    yield opened
    await opened.close()


async def readers(database: Database, file_id: str) -> list[str]:
    async with database.session() as session:
        access = FileAccess(session)
        return [user for user in ("alice", "bob", "carol", "dave") if (await access.verdict(file_id, user)).allowed]


async def is_recalled(database: Database, file_id: str) -> bool:
    async with database.session() as session:
        return (await FileAccess(session).verdict(file_id, "alice")).recalled


async def test_sender_and_receiver_may_and_nobody_after_the_recall(database: Database, log: Any) -> None:
    seq = await log.direct("alice", "bob", MsgType.FILE)
    await log.attach("f", seq)
    assert await readers(database, "f") == ["alice", "bob"]
    await log.recall(seq)
    assert await readers(database, "f") == []


async def test_of_a_group_those_who_were_in_it_when_it_was_sent_may(database: Database, log: Any) -> None:
    await log.group("g", "alice", "bob", "carol")
    await log.change("g", actor="alice", removed=("carol",))
    await log.attach("f", await log.say("alice", "g", MsgType.GROUP_FILE))
    await log.change("g", actor="alice", removed=("bob",), added=("dave",))
    assert await readers(database, "f") == ["alice", "bob"]


async def test_a_forwarded_file_stays_with_those_who_have_it_from_another_message(database: Database, log: Any) -> None:
    first, forwarded = await log.direct("alice", "bob", MsgType.FILE), await log.direct("bob", "carol", MsgType.FILE)
    await log.attach("f", first)
    await log.attach("f", forwarded)
    await log.recall(first)
    assert await readers(database, "f") == ["bob", "carol"]
    assert await readers(database, "another") == []


async def test_a_file_counts_as_recalled_when_no_message_carries_it_any_more(database: Database, log: Any) -> None:
    first, forwarded = await log.direct("alice", "bob", MsgType.FILE), await log.direct("bob", "carol", MsgType.FILE)
    await log.attach("f", first)
    await log.attach("f", forwarded)
    told = [await is_recalled(database, "f"), await is_recalled(database, "never sent")]
    for seq in (first, forwarded):
        await log.recall(seq)
        told.append(await is_recalled(database, "f"))
    assert told == [False, False, False, True]

"""A statement that PostgreSQL cancels because of one message stops nobody else's."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from message_store import archive_repository, leadership
from message_store.archive_repository import Archive
from message_store.errors import StatementTooSlow
from message_store.locks import SEQ_LOCK
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType
from tlim_runtime.outages import DatabaseUnavailable

HURRY = "1s"


@pytest_asyncio.fixture
async def other(world: Any) -> AsyncIterator[Any]:
    """Another connection to the store's database, which can be in the way."""
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


async def test_a_message_whose_statement_is_cancelled_is_refused_and_its_neighbours_are_stored(
    world: Any, accepted: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(leadership._SESSION, "statement_timeout", HURRY)
    async with world.running():
        await world.send(accepted("m0", "carol", "dave"))
        await world.settled(1)
        async with other.transaction():
            await other.execute("SELECT FROM conversations WHERE conversation_id = 'u:carol:dave' FOR UPDATE")
            await world.send(accepted("m1"), accepted("m2", "carol", "dave"), accepted("m3"))
            await world.settled(3)
    assert [row["msg_id"] for row in await world.rows()] == ["m0", "m1", "m3"]
    refused = [event for event in await world.out() if not hasattr(event, "envelope")]
    assert [(event.msg_id, event.code) for event in refused] == [("m2", ErrorCode.UNAVAILABLE)]


async def test_a_file_in_too_many_messages_to_look_through_holds_up_nobody_else(
    world: Any, accepted: Any, other: Any
) -> None:
    """The lock stands for a file in so many messages that looking through them ends in no time."""
    world.directory.owners = {"sticker": "alice"}
    forwarded = accepted("forwarded", "carol", "dave", MsgType.IMAGE, body=[{"file_id": "sticker"}])
    async with world.running(), other.transaction():
        await other.execute("LOCK TABLE message_files IN ACCESS EXCLUSIVE MODE")
        await world.send(*(accepted(f"a{number}") for number in range(10)), forwarded)
        await world.send(*(accepted(f"b{number}") for number in range(10)))
        await world.settled(20)
    refused = [event for event in await world.out() if not hasattr(event, "envelope")]
    assert [(event.msg_id, event.code) for event in refused] == [("forwarded", ErrorCode.UNAVAILABLE)]


async def test_the_short_time_for_files_ends_with_the_question(
    world: Any, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET statement_timeout = '7s'")
        archive = Archive(connection)
        async with other.transaction():
            await other.execute("LOCK TABLE message_files IN ACCESS EXCLUSIVE MODE")
            assert await archive.shared_files([("sticker", "carol")]) is None
        assert await connection.fetchval("SHOW statement_timeout") == "7s"
        monkeypatch.setattr(archive_repository, "SHARED_FILES_MS", 60_000)  # for a busy machine
        assert await archive.shared_files([("sticker", "carol")]) == {}
        assert await connection.fetchval("SHOW statement_timeout") == "7s"
    finally:
        await connection.close()


async def test_only_what_the_items_of_a_batch_need_blames_them(world: Any, other: Any) -> None:
    connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try:
        await connection.execute(f"SET statement_timeout = '{HURRY}'")
        archive = Archive(connection)
        async with other.transaction():
            await other.execute("LOCK TABLE message_ids IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StatementTooSlow):
                await archive.places([("alice", "m1")])
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock($1)", SEQ_LOCK)
            with pytest.raises(DatabaseUnavailable) as waited:
                async with archive.transaction():
                    pass
            assert not isinstance(waited.value, StatementTooSlow)
        assert await archive.places([("alice", "m1")]) == []
    finally:
        await connection.close()

"""What is counted for operators agrees with the tables, and a difference in unread messages would be told."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from message_store.metrics import StoreMetrics
from message_store.operate import census
from message_store.operate.census import Census, drift_of
from message_store.operate.census_repository import CensusRepository
from message_store.reading.conversations_repository import ConversationsReader, Entry
from message_store.reading.conversations_service import UNREAD_LOOKED_AT
from message_store.values import ReadRow
from pydantic import SecretStr
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_runtime.database import Database
from tlim_runtime.metrics import Metrics


@pytest_asyncio.fixture
async def database(world: Any) -> Any:
    database = Database(SecretStr(world.database_url).get_secret_value())
    yield database
    await database.close()


async def test_unread_messages_are_the_same_in_both_ways_and_streams_are_counted(
    world: Any, accepted: Any, database: Database
) -> None:
    metrics = Metrics()
    async with world.running():
        await world.send(*(accepted(f"m{number}") for number in range(5)))
        await world.send(accepted("r1", "bob", "alice", MsgType.READ, body=[{"msg_id": "m1"}]))
        await world.settled(6)
        counts = Census(database, await world.connect("message-store"), StoreMetrics(metrics))
        await counts.look_at_tables()
        await counts.look_at_streams()
    value = metrics.registry.get_sample_value
    assert value("tlim_unread_drift") == 0
    assert value("tlim_message_store_mailbox_rows") == len(await world.sql("SELECT FROM mailboxes"))
    assert (value("tlim_database_size_bytes") or 0) > 0
    assert value("tlim_stream_messages", {"stream": StreamName.OUT}) == len(await world.pieces())


async def test_unread_messages_behind_more_than_the_list_looks_at_are_no_drift(
    world: Any, accepted: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "UNREAD_LOOKED_AT", 3)
    async with world.running():
        await world.send(*(accepted(f"m{number}") for number in range(2)))
        await world.send(*(accepted(f"own{number}", "bob", "alice") for number in range(4)))
        await world.settled(6)
    async with database.snapshot() as connection:
        both = CensusRepository(connection), ConversationsReader(connection)
        assert [await drift_of(*both, person) for person in ("alice", "bob")] == [0, 0]


async def test_the_plain_count_stops_where_it_is_told_to(world: Any, accepted: Any, database: Database) -> None:
    async with world.running():
        await world.send(*(accepted(f"m{number}") for number in range(5)))
        await world.settled(5)
    async with database.snapshot() as connection:
        unread = partial(CensusRepository(connection).unread, "bob", "u:alice:bob", 0)
        assert [await unread(look_at=9, at_most=most) for most in (3, 9)] == [3, 5]
        assert await unread(look_at=4, at_most=9) == 4


async def test_people_who_only_read_are_looked_at_as_well(
    world: Any, accepted: Any, session_event: Any, database: Database
) -> None:
    async with world.running():
        await world.announce(session_event("g1", 1, "alice", "bob", "carol"))
        body = [{"session_id": "g1", "text": "to the group"}]
        await world.send(
            *(accepted(f"m{number}", to=None, msg_type=MsgType.GROUP_TEXT, body=body) for number in range(5))
        )
        await world.settled(6)
    async with database.snapshot() as connection:
        chosen = [await CensusRepository(connection).some_people(3) for _ in range(100)]
    assert {person for people in chosen for person in people} == {"alice", "bob", "carol"}


class OneConversation:
    """A list in which bob has so many unread messages."""

    def __init__(self, unread: int = 2) -> None:
        self._unread = unread

    async def newest_seq(self) -> int:
        return 3

    async def entries(
        self, user_id: str, before: int, limit: int, *, count_to: int, look_at: int
    ) -> tuple[Sequence[Entry], bool]:
        assert (user_id, count_to < look_at, before > limit) == ("bob", True, True)
        return [Entry("u:alice:bob", None, None, None, place=3, read_seq=1, unread=self._unread, last_seq=3)], False

    async def messages(self, seqs: Sequence[int]) -> dict[int, ReadRow]:
        assert not seqs
        return {}


class Plain:
    def __init__(self, unread: int) -> None:
        self._unread = unread

    async def unread(self, user_id: str, conversation_id: str, read_seq: int, *, look_at: int, at_most: int) -> int:
        assert (user_id, conversation_id, read_seq, look_at) == ("bob", "u:alice:bob", 1, UNREAD_LOOKED_AT)
        return min(self._unread, at_most)


async def test_a_list_that_counts_otherwise_is_a_drift() -> None:
    assert [await drift_of(Plain(unread), OneConversation(), "bob") for unread in (2, 1, 5)] == [0, 1, 3]


@pytest.mark.parametrize(("listed", "plain", "differs"), [(500, 3, True), (3, 500, True), (500, 700, False)])
async def test_a_list_with_many_unread_messages_is_compared_as_well(listed: int, plain: int, differs: bool) -> None:
    assert (await drift_of(Plain(plain), OneConversation(listed), "bob") > 0) is differs

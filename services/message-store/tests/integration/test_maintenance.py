"""Partitions and retention on real PostgreSQL, while others read and write."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from message_store.maintain import retention
from message_store.maintain.repository import Maintenance
from message_store.maintain.retention import Removed, remove_messages, remove_recalls
from message_store.maintain.settings import MaintenanceSettings
from message_store.partition_repository import Partitions
from message_store.upkeep import PartitionKeeper
from pydantic import SecretStr, ValidationError
from tlim_runtime.database import Database

SPAN = 100
LOG = """
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, 'c' || n % 3, 'alice', 'bob', 1, 'm' || n, 'MTT-000', true, '', '[]', '', '', n * 1000
    FROM generate_series($1::int, $2::int) AS n"""
AROUND = {
    "message_ids": "INSERT INTO message_ids SELECT 'm' || n, 'alice', n FROM generate_series($1::int, $2::int) AS n",
    "message_files": "INSERT INTO message_files SELECT 'file', n FROM generate_series($1::int, $2::int) AS n",
    "receipts": "INSERT INTO receipts SELECT n, 'bob', 1, 2 FROM generate_series($1::int, $2::int) AS n",
    "addressees": "INSERT INTO addressees SELECT 'carol', n FROM generate_series($1::int, $2::int) AS n",
    "search_documents": "INSERT INTO search_documents SELECT n, ARRAY[1] FROM generate_series($1::int, $2::int) AS n",
}


@dataclass
class Shop:
    """A store with partitions of 100 seqs; a row's time is its seq in seconds."""

    owner: Any  # a connection of the tables' owner
    url: str  # of the service
    owner_url: str

    def __post_init__(self) -> None:
        self.store = Maintenance(self.owner)

    async def fill(self, rows: int, first: int = 1) -> None:
        """Store rows of the log, three conversations in turn, with everything that can belong to a message."""
        for statement in (LOG, *AROUND.values()):
            await self.owner.execute(statement, first, rows)
        await self.owner.execute("UPDATE publication SET published_seq = $1, indexed_seq = $1", rows)
        await self.owner.execute("SELECT setval('message_seq', $1::bigint)", rows)

    async def seqs(self, table: str = "messages") -> list[int]:
        return sorted(row["seq"] for row in await self.owner.fetch(f"TABLE {table}"))

    async def partitions(self) -> list[tuple[int, int]]:
        return [(one.first, one.bound) for one in await self.store.partitions()]

    async def run(self, *arguments: str, **environment: str) -> tuple[int | None, str]:
        """Run the command as an operator does; return its exit status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "message_store.maintain", *arguments,
            env={**os.environ, "TLIM_DATABASE_URL": self.owner_url, **environment}, stdout=PIPE, stderr=STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode, output.decode()


@pytest_asyncio.fixture
async def shop(make_database: Callable[[str], str], owner_url: Callable[[str, str], str]) -> AsyncIterator[Shop]:
    url = make_database("message_store")
    owner = await asyncpg.connect(owner_url("message_store", url).replace("+asyncpg", ""))
    shop = Shop(owner, url, owner_url("message_store", url))
    for partition in await shop.store.partitions():
        await owner.execute(f"DROP TABLE {partition.name}")
    await owner.execute("SELECT add_message_partitions($1, 450)", SPAN)
    yield shop
    await owner.close()


async def test_what_is_older_goes_with_everything_that_belongs_to_it(shop: Shop) -> None:
    await shop.fill(350)
    assert await remove_messages(shop.store, 250_000) == Removed(rows=249, partitions=2)
    for table in ("messages", *AROUND):
        assert await shop.seqs(table) == list(range(250, 351)), table
    assert await shop.partitions() == [(201, 301), (301, 401), (401, 501)]


async def test_a_second_run_finds_nothing_to_do(shop: Shop) -> None:
    await shop.fill(350)
    await remove_messages(shop.store, 250_000)
    assert await remove_messages(shop.store, 250_000) == Removed()
    assert await remove_messages(shop.store, 260_000) == Removed(rows=10)


async def test_batches_leave_nothing_out(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    await shop.fill(350)
    assert (await remove_messages(shop.store, 250_000)).rows == 249
    assert await shop.seqs() == list(range(250, 351))


async def test_everything_may_be_too_old(shop: Shop) -> None:
    await shop.fill(350)
    assert await remove_messages(shop.store, 10**15) == Removed(rows=350, partitions=3)
    assert await shop.partitions() == [(301, 401), (401, 501)]  # where the next ones go
    await shop.fill(351, first=351)
    assert await shop.seqs() == [351]


async def test_nothing_goes_that_is_not_published_and_indexed(shop: Shop) -> None:
    await shop.fill(350)
    await shop.owner.execute("UPDATE publication SET indexed_seq = 120")
    await remove_messages(shop.store, 10**15)
    assert await shop.seqs() == list(range(121, 351))


async def test_a_younger_row_among_old_ones_stops_it(shop: Shop) -> None:
    """A clock that was set back: rather too much is kept than too little."""
    await shop.fill(350)
    await shop.owner.execute("UPDATE messages SET stored_at = 999000 WHERE seq IN (150, 160)")
    assert await remove_messages(shop.store, 250_000) == Removed(rows=149, partitions=1)
    assert await shop.seqs() == list(range(150, 351))


async def test_the_audit_of_recalls_has_a_date_of_its_own(shop: Shop) -> None:
    await shop.fill(20)
    await shop.owner.execute(
        "INSERT INTO recalls (seq, conversation_id, sender, msg_id, msg_type, stored_at, recalled_at)"
        " SELECT n, 'c', 'alice', 'm', 'MTT-000', n * 1000, n * 1000 FROM generate_series(1, 20) AS n"
    )
    await remove_messages(shop.store, 10_000)
    assert await shop.seqs("recalls") == list(range(1, 21))
    assert await remove_recalls(shop.store, 5_000) == Removed(recalls=4)
    assert await shop.seqs("recalls") == list(range(5, 21))


async def test_readers_and_writers_go_on_meanwhile(shop: Shop) -> None:
    await shop.fill(350)
    reader = await asyncpg.connect(shop.url.replace("+asyncpg", ""))
    writer = await asyncpg.connect(shop.url.replace("+asyncpg", ""))
    open_read, open_write = reader.transaction(), writer.transaction()
    await open_read.start()
    await open_write.start()
    assert await reader.fetchval("SELECT count(*) FROM messages WHERE seq > 300") == 50
    await writer.execute("UPDATE messages SET recalled_at = 1 WHERE seq = 340")
    removal = asyncio.create_task(remove_messages(shop.store, 250_000))
    other = await asyncpg.connect(shop.url.replace("+asyncpg", ""))
    while True:  # until it waits for those two
        held = await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
        if held or removal.done():
            break
    assert await other.fetchval("SELECT count(*) FROM messages WHERE seq > 300", timeout=10) == 50
    await other.execute("UPDATE messages SET recalled_at = 1 WHERE seq = 345", timeout=10)
    await open_read.rollback()
    await open_write.commit()
    assert await removal == Removed(rows=249, partitions=2)
    for connection in (reader, writer, other):
        await connection.close()


async def test_a_run_that_was_broken_off_is_finished_by_the_next(shop: Shop) -> None:
    await shop.fill(350)
    first, second = (await shop.store.partitions())[:2]
    await shop.owner.execute(f"ALTER TABLE messages DETACH PARTITION {first.name} CONCURRENTLY")
    await shop.store.remove_around(second.first - 1, second.bound - 1)
    assert await remove_messages(shop.store, 250_000) == Removed(rows=149, partitions=2)
    assert await shop.owner.fetchval("SELECT to_regclass($1)", first.name) is None


async def test_the_keeper_adds_partitions_before_they_are_needed(shop: Shop) -> None:
    database = Database(shop.url)
    keeper = PartitionKeeper(Partitions(database), SPAN)
    await shop.fill(440)
    await keeper.ensure()
    assert (await shop.partitions())[-1] == (401, 501)
    await shop.fill(451, first=451)
    await keeper.ensure()
    assert (await shop.partitions())[-1] == (501, 601)
    await shop.owner.execute("SELECT setval('message_seq', 5000)")
    await keeper.ensure()
    assert (await shop.partitions())[-1] == (5001, 5101)
    await database.close()


async def test_partitions_can_be_added_amid_open_transactions(shop: Shop) -> None:
    database = Database(shop.url)
    reader = await asyncpg.connect(shop.url.replace("+asyncpg", ""))
    async with reader.transaction():
        await reader.fetch("SELECT * FROM messages")
        await reader.execute("DELETE FROM messages")
        assert await Partitions(database).add(SPAN, 700) == 701
    await reader.close()
    await database.close()


async def test_an_operator_sees_the_partitions_and_adds_some(shop: Shop) -> None:
    await shop.fill(150)
    await shop.owner.execute("ANALYZE messages")
    status, printed = await shop.run("partitions", "--ahead", "1", TLIM_PARTITION_SPAN="1000")
    assert status == 0, printed
    lines = [line.split() for line in printed.splitlines()[1:]]
    assert [line[:4] for line in lines[:2]] == [
        ["messages_p1", "1", "100", "100"],
        ["messages_p101", "101", "200", "50"],
    ]
    assert lines[-1] == ["messages_p501", "501", "1,500", "0", lines[-1][4], "empty"]
    assert lines[0][5:] == ["1970-01-01", "00:00+00:00", "to", "1970-01-01", "00:01+00:00"]


async def test_an_operator_applies_the_policy(shop: Shop) -> None:
    await shop.fill(350)
    status, printed = await shop.run("retention")
    assert (status, "kept for ever" in printed) == (0, True)
    status, printed = await shop.run("retention", TLIM_RETAIN_MESSAGES="P30D", TLIM_RETAIN_RECALLS="P60D")
    assert status == 0, printed
    assert "350 removed, 3 partitions dropped" in printed
    assert "audit of recalls" in printed


async def test_two_runs_do_not_work_at_once(shop: Shop) -> None:
    assert await shop.store.take_turn()
    outcome = await shop.run("retention", TLIM_RETAIN_MESSAGES="P30D")
    assert outcome == (1, "another run of maintenance is at work\n")


@pytest.mark.parametrize(
    ("messages", "recalls"), [(30, 29), (None, 30), (0.5, None)], ids=["audit shorter", "messages for ever", "hours"]
)
def test_a_policy_that_contradicts_itself_is_refused(messages: float | None, recalls: float | None) -> None:
    days = {"retain_messages": messages, "retain_recalls": recalls}
    given: dict[str, Any] = {name: timedelta(days=value) for name, value in days.items() if value is not None}
    with pytest.raises(ValidationError):
        MaintenanceSettings(database_url=SecretStr("unused"), **given)

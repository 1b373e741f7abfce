"""Retention on real PostgreSQL, while others read and write; partitions as an operator sees them."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.tables import OwnerLogin
from tlim_admin.progress import steps
from tlim_admin.retention import messages as rules
from tlim_admin.retention.commands import DAY_MS, Kept, Retained, describe, retain
from tlim_admin.retention.log_tables import Log, UntouchedLog
from tlim_admin.retention.messages import Removed, remove_messages, remove_recalls

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
    login: OwnerLogin

    def __post_init__(self) -> None:
        self.store = Log(self.owner)

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


@pytest_asyncio.fixture
async def shop(data: Any) -> Shop:
    shop = Shop(data.store, data.logins["message_store"])
    for partition in await shop.store.partitions():
        await shop.owner.execute(f"DROP TABLE {partition.name}")
    await shop.owner.execute("SELECT add_message_partitions($1, 450)", SPAN)
    return shop


async def test_what_is_older_goes_with_everything_that_belongs_to_it(shop: Shop) -> None:
    await shop.fill(350)
    assert await remove_messages(shop.store, 250_000) == Removed(rows=249, partitions=2, last=249)
    for table in ("messages", *AROUND):
        assert await shop.seqs(table) == list(range(250, 351)), table
    assert await shop.partitions() == [(201, 301), (301, 401), (401, 501)]


async def test_a_second_run_finds_nothing_to_do(shop: Shop) -> None:
    await shop.fill(350)
    await remove_messages(shop.store, 250_000)
    assert await remove_messages(shop.store, 250_000) == Removed()
    assert await remove_messages(shop.store, 260_000) == Removed(rows=10, last=259)


async def test_batches_leave_nothing_out(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BATCH", 7)
    await shop.fill(350)
    assert (await remove_messages(shop.store, 250_000)).rows == 249
    assert await shop.seqs() == list(range(250, 351))


async def test_everything_may_be_too_old(shop: Shop) -> None:
    await shop.fill(350)
    assert await remove_messages(shop.store, 10**15) == Removed(rows=350, partitions=3, last=350)
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
    assert await remove_messages(shop.store, 250_000) == Removed(rows=149, partitions=1, last=149)
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
    reader = await asyncpg.connect(shop.login.url)
    writer = await asyncpg.connect(shop.login.url)
    open_read, open_write = reader.transaction(), writer.transaction()
    await open_read.start()
    await open_write.start()
    assert await reader.fetchval("SELECT count(*) FROM messages WHERE seq > 300") == 50
    await writer.execute("UPDATE messages SET recalled_at = 1 WHERE seq = 340")
    removal = asyncio.create_task(remove_messages(shop.store, 250_000))
    other = await asyncpg.connect(shop.login.url)
    while True:  # until it waits for those two
        held = await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
        if held or removal.done():
            break
    assert await other.fetchval("SELECT count(*) FROM messages WHERE seq > 300", timeout=10) == 50
    await other.execute("UPDATE messages SET recalled_at = 1 WHERE seq = 345", timeout=10)
    await open_read.rollback()
    await open_write.commit()
    assert await removal == Removed(rows=249, partitions=2, last=249)
    for connection in (reader, writer, other):
        await connection.close()


async def test_a_run_that_was_broken_off_is_finished_by_the_next(shop: Shop) -> None:
    await shop.fill(350)
    first, second = (await shop.store.partitions())[:2]
    await shop.owner.execute(f"ALTER TABLE messages DETACH PARTITION {first.name} CONCURRENTLY")
    await shop.store.remove_around(second.first - 1, second.bound - 1)
    assert await remove_messages(shop.store, 250_000) == Removed(rows=149, partitions=2, last=249)
    assert await shop.owner.fetchval("SELECT to_regclass($1)", first.name) is None


async def test_a_rehearsal_counts_the_same_and_removes_nothing(shop: Shop) -> None:
    await shop.fill(350)
    before = [await shop.seqs(table) for table in ("messages", *AROUND)]

    rehearsed = await remove_messages(UntouchedLog(shop.owner), 250_000)

    assert [await shop.seqs(table) for table in ("messages", *AROUND)] == before
    assert await remove_messages(shop.store, 250_000) == rehearsed


@pytest.mark.parametrize(("cutoff", "last"), [(0, 0), (1_000, 0), (1_001, 1), (250_000, 249), (10**9, 350)])
async def test_the_end_of_the_work_is_known_before_it_begins(shop: Shop, cutoff: int, last: int) -> None:
    await shop.fill(350)
    told: list[tuple[int, int]] = []

    await remove_messages(shop.store, cutoff, lambda done, total: told.append((done, total)))

    assert told[-1:] == ([(last, last)] if last else [])


async def test_an_operator_sees_the_partitions_and_adds_some(shop: Shop) -> None:
    await shop.fill(150)
    await shop.owner.execute("ANALYZE messages")

    found = await describe(shop.login, ahead=1)

    assert [(*one.partition[1:], one.rows) for one in found[:2]] == [(1, 101, 100), (101, 201, 50)]
    assert (found[0].oldest, found[0].newest) == (1_000, 100_000)
    assert (found[-1].partition, found[-1].oldest) == (("messages_p501", 501, 601), None)


FILES = """
    INSERT INTO blobs (blob_id, sha256, size, stored_at, scan)
        SELECT name, name, 10, now(), 'skipped' FROM unnest('{a,b,c,d,e}'::text[]) AS new (name);
    INSERT INTO files (file_id, owner_id, blob_id, name, media_type, size, stored_at)
        SELECT file_id, 'alice', blob_id, '', '', 10, now() - age * interval '1 day'
        FROM (VALUES ('old', 'a', 40), ('carried-by-young', 'b', 40), ('young', 'c', 5), ('same-as-young', 'c', 40),
                     ('of-the-dead', 'd', 40), ('infected', 'e', 40)) AS new (file_id, blob_id, age);
    UPDATE blobs SET scan = 'infected' WHERE blob_id = 'e'"""


async def apply(data: Any, days: int, recalls: int | None = None, *, rehearsal: bool = False) -> Retained:
    with steps() as shown:
        return await retain(Kept(days, recalls), data.logins, shown, rehearsal=rehearsal)


async def keep_files(data: Any, shop: Shop) -> None:
    """Store 350 messages of 40 days ago and 10 of today; one file is in both, and one in an old message only."""
    await data.files.execute(FILES)
    await shop.fill(360)
    now = time.time_ns() // 1_000_000
    await shop.owner.execute("UPDATE messages SET stored_at = $1 WHERE seq > 350", now)
    await shop.owner.execute("UPDATE messages SET stored_at = $1 WHERE seq <= 350", now - 40 * DAY_MS)
    await shop.owner.execute("UPDATE message_files SET file_id = 'gone-before' WHERE seq NOT IN (3, 4, 355)")
    await shop.owner.execute("UPDATE message_files SET file_id = 'carried-by-young' WHERE seq IN (3, 355)")
    await shop.owner.execute("UPDATE message_files SET file_id = 'of-the-dead' WHERE seq = 4")


async def test_files_go_when_they_are_old_and_no_message_that_stays_has_them(data: Any, shop: Shop) -> None:
    await keep_files(data, shop)

    rehearsed, done = await apply(data, 30, rehearsal=True), await apply(data, 30)

    left = {row["file_id"] for row in await data.files.fetch("SELECT file_id FROM files")}
    assert left == {"carried-by-young", "young"}
    blobs = {row["blob_id"] for row in await data.files.fetch("SELECT blob_id FROM blobs")}
    assert blobs == {"b", "c", "e"}  # e: an infected file stays refused
    keys = {row["object_key"] for row in await data.files.fetch("SELECT object_key FROM discarded")}
    assert keys == {"files/a/a", "files/d/d"}
    assert (done.messages, done.partitions, done.files, done.bytes) == (350, 3, 4, 20)
    assert (rehearsed.messages, rehearsed.partitions, rehearsed.files) == (350, 3, 4)
    assert await shop.seqs() == list(range(351, 361))
    assert (await apply(data, 30))[1:] == (0, 0, 0, 0, 0, False)


async def test_what_was_removed_is_forgotten_when_no_message_that_stays_carries_it(data: Any, shop: Shop) -> None:
    await keep_files(data, shop)
    await shop.owner.execute("UPDATE message_files SET file_id = 'removed' WHERE seq = 356")
    await data.files.execute("""
        INSERT INTO removed_files VALUES ('removed', now() - interval '40 days'), ('today', now()),
            ('gone-before', now() - interval '40 days'), ('of-recalled', now() - interval '40 days')""")
    await shop.owner.execute("UPDATE message_files SET file_id = 'other' WHERE file_id = 'gone-before' AND seq > 350")

    await apply(data, 30, rehearsal=True)
    assert await data.files.fetchval("SELECT count(*) FROM removed_files") == 4
    await apply(data, 30)

    assert {row["file_id"] for row in await data.files.fetch("SELECT file_id FROM removed_files")} == {
        "removed",
        "today",
    }


async def test_recalls_are_kept_for_ever_unless_their_days_are_given(data: Any, shop: Shop) -> None:
    await shop.owner.execute("INSERT INTO recalls VALUES (1, 'c', 'alice', 'm', 'MTT-000', 1, 1, NULL)")

    assert (await apply(data, 30)).recalls == 0
    assert (await apply(data, 30, 60, rehearsal=True)).recalls == 1
    assert (await apply(data, 30, 60)).recalls == 1


async def test_two_runs_do_not_work_at_once(data: Any, shop: Shop) -> None:
    assert await shop.store.take_turn()
    with pytest.raises(BackupError, match="another run"):
        await apply(data, 30)

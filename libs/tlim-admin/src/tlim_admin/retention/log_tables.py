"""The SQL of retention in message-store's database, with the rights of the role that owns the tables."""

from collections.abc import Sequence
from typing import NamedTuple

from tlim_runtime.transactions import Connection, begun

_MAINTENANCE_LOCK = 0x746C_696D_0003  # beside those of message_store.locks

_PARTITIONS = r"""
    SELECT relname, bounds[1]::bigint, bounds[2]::bigint
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid,
         regexp_match(pg_get_expr(relpartbound, pg_class.oid), 'FROM \(''?(\d+).*TO \(''?(\d+)') AS bounds
    WHERE inhparent = 'messages'::regclass ORDER BY bounds[1]::bigint"""

_LEFTOVERS = r"""
    SELECT relname, inhrelid IS NOT NULL FROM pg_class LEFT JOIN pg_inherits ON inhrelid = oid
    WHERE relname ~ '^messages_p\d+$' AND relkind = 'r' AND relnamespace = 'public'::regnamespace
        AND (inhrelid IS NULL OR inhdetachpending)"""

_END_OF_BATCH = """
    WITH batch AS (
        SELECT seq, stored_at FROM messages WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $4)
    SELECT max(seq) FROM batch
    WHERE seq < coalesce((SELECT min(seq) FROM batch WHERE stored_at >= $3), 9223372036854775807)"""

# What belongs to a message stands in other tables, by its seq. Only message_ids has no index on seq: its rows are found
# by the msg_id and sender of the message.
_REMOVE_AROUND = (
    """DELETE FROM message_ids USING messages
       WHERE messages.seq > $1 AND messages.seq <= $2 AND message_ids.seq = messages.seq
           AND message_ids.msg_id = messages.msg_id AND message_ids.sender = messages.sender""",
    "DELETE FROM message_files WHERE seq > $1 AND seq <= $2",
    "DELETE FROM receipts WHERE seq > $1 AND seq <= $2",
    "DELETE FROM addressees WHERE seq > $1 AND seq <= $2",
    "DELETE FROM search_documents WHERE seq > $1 AND seq <= $2",
)

_DESCRIBE = """
    SELECT greatest(reltuples, 0)::bigint AS rows, pg_total_relation_size(oid) AS bytes
    FROM pg_class WHERE oid = $1::text::regclass"""

_OLDEST = "SELECT stored_at FROM messages WHERE seq >= $1 AND seq < $2 ORDER BY seq LIMIT 1"
_NEWEST = "SELECT stored_at FROM messages WHERE seq >= $1 AND seq < $2 ORDER BY seq DESC LIMIT 1"
_HOLDS_YOUNGER = "SELECT EXISTS (SELECT FROM messages WHERE seq >= $1 AND seq < $2 AND stored_at >= $3)"


class Partition(NamedTuple):
    """A part of the log: the seqs from `first` up to, but without, `bound`."""

    name: str
    first: int
    bound: int


class Description(NamedTuple):
    """A partition as an operator sees it: `rows` is PostgreSQL's estimate, times are epoch ms, None if it is empty."""

    partition: Partition
    rows: int
    bytes: int
    oldest: int | None
    newest: int | None


class Log:
    """The log and what belongs to it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def take_turn(self) -> bool:
        """Take the lock of maintenance until this connection ends; return False if another run holds it."""
        return bool(await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _MAINTENANCE_LOCK))

    async def settled_seq(self) -> int:
        """Return up to which seq everything is published and indexed."""
        return int(await self._connection.fetchval("SELECT least(published_seq, indexed_seq) FROM publication"))

    async def partitions(self) -> list[Partition]:
        """Return the parts of the log, oldest first."""
        return [Partition(*row) for row in await self._connection.fetch(_PARTITIONS)]

    async def describe(self, partition: Partition) -> Description:
        """Return what is in a partition."""
        rows, size = await self._connection.fetchrow(_DESCRIBE, partition.name) or (0, 0)
        bounds = (partition.first, partition.bound)
        oldest, newest = [await self._connection.fetchval(statement, *bounds) for statement in (_OLDEST, _NEWEST)]
        return Description(partition, rows, size, oldest, newest)

    async def add_partitions(self, count: int) -> None:
        """Add so many partitions behind the last one, as large as that."""
        _, first, bound = (await self.partitions())[-1]
        span = bound - first
        await self._connection.execute("SELECT add_message_partitions($1, $2)", span, bound + span * count - 1)

    async def drop_leftovers(self) -> int:
        """Drop partitions that an earlier run has detached but not dropped; return how many."""
        leftovers = await self._connection.fetch(_LEFTOVERS)
        for name, is_half_detached in leftovers:
            if is_half_detached:
                await self._connection.execute(f"ALTER TABLE messages DETACH PARTITION {name} FINALIZE")
            await self._connection.execute(f"DROP TABLE {name}")
        return len(leftovers)

    async def newest_before(self, cutoff: int) -> int:
        """Return about the last seq that was stored before `cutoff`; 0: there is none. Exact if no clock was set back.

        Times rise with the seqs, so halving finds it with 64 look-ups at most, and reads no table.
        """
        low, high = 0, int(await self._connection.fetchval("SELECT coalesce(max(seq), 0) FROM messages"))
        while low < high:
            middle = (low + high + 1) // 2
            at = await self._connection.fetchval(_NEWEST, 0, middle + 1)
            low, high = (middle, high) if at is None or at < cutoff else (low, middle - 1)
        return low

    async def holds_younger(self, partition: Partition, cutoff: int) -> bool:
        """Tell whether the partition has a row that was stored at `cutoff` or later."""
        return bool(await self._connection.fetchval(_HOLDS_YOUNGER, partition.first, partition.bound, cutoff))

    async def end_of_batch(self, after: int, settled: int, cutoff: int, limit: int) -> int | None:
        """Return the seq of the last of the next rows that were all stored before `cutoff`; None: there is none."""
        last: int | None = await self._connection.fetchval(_END_OF_BATCH, after, settled, cutoff, limit)
        return last

    async def remove_around(self, after: int, last: int) -> int:
        """Remove what belongs to rows of the log, in one transaction; return the number of these rows."""
        async with begun(self._connection):
            for statement in _REMOVE_AROUND:
                await self._connection.execute(statement, after, last)
            return await self._rows(after, last)

    async def remove(self, after: int, last: int) -> int:
        """Remove rows of the log with what belongs to them, in one transaction; return the number of these rows."""
        async with begun(self._connection):
            for statement in _REMOVE_AROUND:
                await self._connection.execute(statement, after, last)
            return await self._count("DELETE FROM messages WHERE seq > $1 AND seq <= $2", after, last)

    async def drop(self, partition: Partition) -> None:
        """Drop a partition. It is detached concurrently first, so that no reader or writer has to wait."""
        await self._connection.execute(f"ALTER TABLE messages DETACH PARTITION {partition.name} CONCURRENTLY")
        await self._connection.execute(f"DROP TABLE {partition.name}")

    async def remove_recalls(self, cutoff: int, limit: int) -> int:
        """Remove audit rows of recalls before a time; return how many."""
        statement = "DELETE FROM recalls WHERE seq IN (SELECT seq FROM recalls WHERE recalled_at < $1 LIMIT $2)"
        return await self._count(statement, cutoff, limit)

    async def _rows(self, after: int, last: int) -> int:
        count = "SELECT count(*) FROM messages WHERE seq > $1 AND seq <= $2"
        return int(await self._connection.fetchval(count, after, last))

    async def _count(self, statement: str, *arguments: int) -> int:
        return int((await self._connection.execute(statement, *arguments)).split()[-1])  # as in `DELETE 5`


class UntouchedLog(Log):
    """The same, for a rehearsal: it counts what would be removed, and changes nothing."""

    async def drop_leftovers(self) -> int:
        """Return how many partitions an earlier run has detached but not dropped."""
        return len(await self._connection.fetch(_LEFTOVERS))

    async def remove_around(self, after: int, last: int) -> int:
        """Return how many rows of the log these are."""
        return await self._rows(after, last)

    async def remove(self, after: int, last: int) -> int:
        """Return how many rows of the log these are."""
        return await self._rows(after, last)

    async def drop(self, partition: Partition) -> None:
        """Leave it where it is."""


async def recalls_before(connection: Connection, cutoff: int) -> int:
    """Return how many recalls before `cutoff` are in their audit."""
    return int(await connection.fetchval("SELECT count(*) FROM recalls WHERE recalled_at < $1", cutoff))


async def carried_after(connection: Connection, file_ids: Sequence[str], seq: int) -> set[str]:
    """Return those of these files that a message after `seq` carries."""
    statement = "SELECT DISTINCT file_id FROM message_files WHERE file_id = ANY($1::text[]) AND seq > $2"
    return {row["file_id"] for row in await connection.fetch(statement, file_ids, seq)}

"""All SQL of search: look candidates up by their numbers, and keep the index up to date with the log."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from tlim_runtime.database import Database, silent_after_s
from tlim_runtime.transactions import Connection

from message_store.locks import SEQ_LOCK
from message_store.reading.slice_repository import Slice, read_slice, slice_statement
from message_store.search.service import Candidates, Lookup
from message_store.statements import NamedStatement

STATEMENT_TIMEOUT_MS = 2_000
"""A statement of a search takes milliseconds. A slower one is cancelled, and the reader gets error-010."""

INSERT_TIMEOUT_MS = 120_000
"""Long, because a cancelled insert would be tried again for ever, and no user waits for it. A message of 1 MiB has up
to 350,000 numbers, each on its own page of the index: 1 s if all pages are in memory, minutes if none is."""

PREFETCH = 25
"""Rows of the log fetched at a time; each can be 1 MiB."""

# Without this, PostgreSQL scans all messages and compares each with every conversation of the reader. It believes that
# comparing costs nothing. In fact comparing one message with hundreds of conversations is as slow as looking up
# hundreds of messages. Such scans took seconds in small stores, and for readers with many conversations.
_BY_THE_INDEX = NamedStatement(
    f"SELECT set_config('enable_seqscan', 'off', true), set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', true)"
)

_GROUPS = NamedStatement("""
    SELECT DISTINCT conversation_id FROM members
    WHERE user_id = :user_id AND NOT starts_with(conversation_id, 'u:')""")

_SPAN = NamedStatement("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM search_documents")

# `hits` is materialized: first the GIN index gives all hits, then the newest are picked. Otherwise the planner prefers
# to walk back through the whole table in the order of seq. `seq + 0` keeps it from using the index on seq.
_CANDIDATES = """
    WITH hits AS MATERIALIZED (
        SELECT seq FROM search_documents
        WHERE grams @> CAST(:required AS int[]) {any_of} AND seq + 0 < CAST(:before AS bigint)),
    newest AS (SELECT seq FROM hits ORDER BY seq DESC LIMIT :limit)
    SELECT newest.seq, found.seq IS NOT NULL AS visible
    FROM newest LEFT JOIN LATERAL (
        SELECT messages.seq FROM messages
        WHERE messages.seq = newest.seq AND is_chat AND recalled_at IS NULL
            AND (CAST(:conversation_id AS text) IS NULL OR conversation_id = :conversation_id)
            AND (CAST(:sender AS text) IS NULL OR sender = :sender)
            AND (CAST(:msg_type AS text) IS NULL OR msg_type = :msg_type)
            AND (CAST(:since AS bigint) IS NULL OR stored_at >= :since)
            AND (CAST(:until AS bigint) IS NULL OR stored_at <= :until)
            AND EXISTS (
                SELECT FROM members
                WHERE members.conversation_id = messages.conversation_id AND user_id = :user_id
                    AND joined_seq <= messages.seq AND (left_seq IS NULL OR left_seq >= messages.seq))
    ) AS found ON true
    ORDER BY newest.seq DESC"""

_IN_ONE = NamedStatement(_CANDIDATES.format(any_of=""))
_IN_SEVERAL = NamedStatement(_CANDIDATES.format(any_of="AND grams && CAST(:any_of AS int[])"))

_MESSAGES = slice_statement(
    "SELECT seq FROM unnest(CAST(:seqs AS bigint[])) AS asked (seq) ORDER BY seq DESC LIMIT :one_more",
    newest_first=True,
)

_FIRST_AFTER = NamedStatement("""
    WITH RECURSIVE halves (low, high) AS (
        SELECT CAST(:first AS bigint), CAST(:last AS bigint) + 1
        UNION ALL
        SELECT CASE WHEN is_after THEN low ELSE middle + 1 END, CASE WHEN is_after THEN middle ELSE high END
        FROM (
            SELECT low, high, (low + high) / 2 AS middle, coalesce(
                (SELECT stored_at FROM messages WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1)
                > CAST(:stored_at AS bigint), true) AS is_after
            FROM halves WHERE low < high) AS step)
    SELECT low FROM halves WHERE low >= high""")

_UNINDEXED = """
    SELECT seq, conversation_id, sender, recipient, msg_type,
           CASE WHEN is_chat AND recalled_at IS NULL THEN body::text END AS body
    FROM messages WHERE seq > $1 ORDER BY seq LIMIT $2"""

_INSERT_DOCUMENTS = """
    INSERT INTO search_documents (seq, grams)
    SELECT seq, grams::int[] FROM unnest($1::bigint[], $2::text[]) AS new (seq, grams)
    ON CONFLICT DO NOTHING"""

# The erasure of a person empties messages as a recall does, and writes nothing into `recalls`.
_DROP_RECALLED = """
    DELETE FROM search_documents
    WHERE seq IN (SELECT seq FROM messages WHERE seq > $1 AND seq <= $2 AND recalled_at IS NOT NULL)"""


class SearchReader:
    """The questions of a search, on the database connection of its request."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def groups_of(self, user_id: str) -> Collection[str]:
        """Return the ids of the sessions that a user is or was in.

        Call it first: it also sets the planner's options and the timeout for the other statements of this search.
        """
        await _BY_THE_INDEX.rows(self._connection)
        return {row[0] for row in await _GROUPS.rows(self._connection, user_id=user_id)}

    async def span(self) -> tuple[int, int]:
        """Return the first and the last indexed seq; (0, 0) when nothing is indexed."""
        first, last = await _SPAN.row(self._connection)
        return first, last

    async def first_after(self, stored_at: int, first: int, last: int) -> int:
        """Return the first seq, from `first` to `last` + 1, from which on everything was stored after `stored_at`.

        A binary search, because times rise with seqs: about twenty look-ups in the primary key, in one statement.
        """
        return int((await _FIRST_AFTER.row(self._connection, stored_at=stored_at, first=first, last=last))[0])

    async def candidates(self, lookup: Lookup, before: int, limit: int) -> Candidates:
        """Return the newest messages before a seq that match a look-up in the index."""
        rows = await (_IN_SEVERAL if lookup.any_of else _IN_ONE).rows(
            self._connection,
            **lookup.filters._asdict(),
            user_id=lookup.user_id,
            required=list(lookup.required),
            any_of=list(lookup.any_of),
            before=before,
            limit=limit,
        )
        return Candidates(len(rows), rows[-1]["seq"] if rows else 0, [row["seq"] for row in rows if row["visible"]])

    async def messages(self, seqs: Sequence[int]) -> Slice:
        """Return the messages with these seqs, newest first, until they fill a page (MAX_BYTES)."""
        return await read_slice(self._connection, _MESSAGES, len(seqs), seqs=list(seqs))


class Unindexed(NamedTuple):
    """A row of the log to be indexed; `body` is JSON text, None when the row is not chat or is recalled."""

    seq: int
    conversation_id: str
    sender: str
    recipient: str | None
    msg_type: str
    body: str | None


class SearchIndex:
    """The search index, written by one store on connections of the pool. Every step may be repeated."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def position(self) -> tuple[int, int]:
        """Return up to which seq the log is indexed, and the newest seq that was given out."""
        async with self._database.hot_transaction() as connection:
            row = await connection.fetchrow(
                "SELECT indexed_seq, (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM message_seq)"
                " FROM publication"
            )
        return (int(row[0]), int(row[1])) if row is not None else (0, 0)

    async def after(self, seq: int, limit: int, max_chars: int) -> tuple[list[Unindexed], bool]:
        """Return the next rows of the log, oldest first, and whether more may follow.

        At most `limit` rows. They end with the row that brings their bodies to `max_chars` characters.
        """
        rows: list[Unindexed] = []
        chars = 0
        async with self._database.hot_transaction() as connection:
            async for record in connection.cursor(_UNINDEXED, seq, limit, prefetch=PREFETCH):
                rows.append(Unindexed(*record))
                chars += len(rows[-1].body or "")
                if chars >= max_chars:
                    return rows, True
        return rows, len(rows) == limit

    async def add(self, documents: Sequence[tuple[int, Collection[int]]]) -> None:
        """Add messages with their numbers to the index; those that it holds already stay as they are."""
        if not documents:
            return
        seqs = [seq for seq, _ in documents]
        grams = ["{" + ",".join(map(str, numbers)) + "}" for _, numbers in documents]
        async with self._database.hot_transaction() as connection:
            await connection.execute("SET LOCAL synchronous_commit = off")  # work lost in a crash is done again
            await connection.execute(f"SET LOCAL statement_timeout = {INSERT_TIMEOUT_MS}")
            await connection.execute(_INSERT_DOCUMENTS, seqs, grams, timeout=silent_after_s(INSERT_TIMEOUT_MS))

    async def finish(self, after: int, seq: int) -> None:
        """Note that the log is indexed up to `seq`; remove messages after `after` that were recalled meanwhile.

        This holds the lock of the log's writer, which a recall and the erasure of a person hold as well. One before it
        did not see the new documents, but is committed by now, so we remove them here. A later one sees the documents
        and removes them itself. If the position has moved meanwhile, it stays: the operator has begun the index anew,
        or another store was faster.
        """
        async with self._database.hot_transaction() as connection:
            await connection.execute("SET LOCAL synchronous_commit = off")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SEQ_LOCK)
            await connection.execute(_DROP_RECALLED, after, seq)
            await connection.execute("UPDATE publication SET indexed_seq = $1 WHERE indexed_seq = $2", seq, after)

"""The SQL of the writer: what a batch refers to, and a few multi-row statements that write its outcome."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tlim_runtime.transactions import Connection, begun

from message_store.blame import translated
from message_store.errors import StatementTooSlow
from message_store.locks import SEQ_LOCK
from message_store.publication_repository import PublicationTables
from message_store.values import LogRow, PendingRead, Place, Progress, Roster, Span, Writes

_FIND_PLACES = """
    SELECT seq, stored_at, conversation_id, sender, msg_id, msg_type, is_chat, recalled_at IS NOT NULL
    FROM unnest($1::text[], $2::text[]) AS asked (sender, msg_id)
    JOIN message_ids USING (sender, msg_id) JOIN messages USING (seq, sender, msg_id)"""

_FIND_PLACES_IN = """
    SELECT seq, stored_at, conversation_id, sender, msg_id, msg_type, is_chat, recalled_at IS NOT NULL
    FROM unnest($1::text[], $2::text[]) AS asked (conversation_id, msg_id)
    JOIN message_ids USING (msg_id) JOIN messages USING (seq, conversation_id, sender, msg_id)
    ORDER BY seq"""

_FIND_SENT_BODIES = """
    SELECT seq, coalesce(sent_body, body)::text
    FROM unnest($1::bigint[], $2::bigint[]) AS asked (seq, most_bytes)
    JOIN messages USING (seq) JOIN message_ids USING (seq, sender, msg_id)
    WHERE octet_length(coalesce(sent_body, body)::text) <= most_bytes"""

_FIND_ROSTERS = """
    SELECT conversations.conversation_id, session_version, deleted_at IS NOT NULL, user_id, joined_seq
    FROM conversations
    LEFT JOIN members ON members.conversation_id = conversations.conversation_id AND left_seq IS NULL
    WHERE conversations.conversation_id = ANY($1::text[]) AND session_version IS NOT NULL
    ORDER BY joined_seq, user_id"""

_FIND_CHANGED = """
    SELECT asked.conversation_id
    FROM unnest($1::text[], $2::bigint[]) AS asked (conversation_id, version)
    LEFT JOIN conversations ON conversations.conversation_id = asked.conversation_id
    WHERE session_version IS DISTINCT FROM asked.version"""

_FIND_SPANS = """
    SELECT conversation_id, user_id, joined_seq, left_seq
    FROM unnest($1::text[], $2::text[]) AS asked (conversation_id, user_id)
    JOIN members USING (conversation_id, user_id)
    WHERE left_seq IS NOT NULL"""

_FIND_SPANS_LEFT = """
    SELECT conversation_id, user_id, joined_seq, left_seq
    FROM unnest($1::text[], $2::bigint[]) AS asked (conversation_id, seq)
    JOIN members USING (conversation_id)
    WHERE left_seq >= asked.seq"""

_FIND_RECEIPTS = """
    SELECT seq, user_id, read_at IS NOT NULL
    FROM unnest($1::bigint[], $2::text[]) AS asked (seq, user_id) JOIN receipts USING (seq, user_id)"""

SHARED_FILES_MS = 500
"""How long the messages with files of others are looked through. Usually that takes milliseconds. But if a file is in
very many messages and the sender sees none of them, all are looked at, and the next batch waits."""

# Ten are enough: we need any one message that still shares the file. We list several only in case this batch recalls
# some of them. OFFSET 0 and LIMIT keep the order of the joins: from a file to its messages. A planner without
# statistics began with all messages, for each of 49,000 files that did not exist.
_FIND_SHARED_FILES = """
    SELECT file_id, user_id, seq
    FROM unnest($1::text[], $2::text[]) AS asked (file_id, user_id) CROSS JOIN LATERAL (
        SELECT carried.seq FROM message_files AS carried
        CROSS JOIN LATERAL (
            SELECT conversation_id FROM messages
            WHERE messages.seq = carried.seq AND recalled_at IS NULL OFFSET 0) AS message
        CROSS JOIN LATERAL (
            SELECT FROM members
            WHERE members.conversation_id = message.conversation_id AND members.user_id = asked.user_id
                AND carried.seq >= joined_seq AND (left_seq IS NULL OR carried.seq <= left_seq) LIMIT 1) AS membership
        WHERE carried.file_id = asked.file_id
        LIMIT 10) AS carrying"""

_INSERT_CONVERSATIONS = """
    WITH made AS (
        INSERT INTO conversations (conversation_id, created_at)
        SELECT conversation_id, $2 FROM unnest($1::text[]) AS new (conversation_id)
        RETURNING conversation_id)
    INSERT INTO members (conversation_id, user_id, joined_seq)
    SELECT DISTINCT conversation_id, split_part(conversation_id, ':', side), 0
    FROM made, unnest(ARRAY[2, 3]) AS side"""

_UPSERT_SESSIONS = """
    INSERT INTO conversations (conversation_id, session_name, session_type, session_version, deleted_at, created_at)
    SELECT conversation_id, session_name, session_type, session_version, deleted_at, $6
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS new (conversation_id, session_name, session_type, session_version, deleted_at)
    ON CONFLICT (conversation_id) DO UPDATE
    SET session_name = excluded.session_name, session_type = excluded.session_type,
        session_version = excluded.session_version, deleted_at = excluded.deleted_at"""

_UPSERT_MEMBERS = """
    INSERT INTO members (conversation_id, user_id, joined_seq, left_seq)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
    ON CONFLICT (conversation_id, user_id, joined_seq) DO UPDATE SET left_seq = excluded.left_seq"""

_INSERT_ROWS = """
    WITH new AS (
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::text[],
                             $8::boolean[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[],
                             $14::text[])
            AS new (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                    msg_time, location, stored_at, sent_body)),
    placed AS (INSERT INTO message_ids (msg_id, sender, seq, sent_body)
               SELECT msg_id, sender, seq, sent_body::json FROM new)
    INSERT INTO messages
        (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body, msg_time,
         location, stored_at)
    SELECT seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body::json, msg_time,
           location, stored_at
    FROM new"""

_TOUCH_CONVERSATIONS = """
    UPDATE conversations SET last_seq = newest.seq
    FROM unnest($1::text[], $2::bigint[]) AS newest (conversation_id, seq)
    WHERE newest.conversation_id = conversations.conversation_id"""

_INSERT_FILES = "INSERT INTO message_files (file_id, seq) SELECT * FROM unnest($1::text[], $2::bigint[])"

_INSERT_ADDRESSEES = "INSERT INTO addressees (user_id, seq) SELECT * FROM unnest($1::text[], $2::bigint[])"

_UPSERT_RECEIPTS = """
    INSERT INTO receipts (seq, user_id, delivered_at, read_at)
    SELECT seq, user_id, $4::bigint, CASE WHEN has_read THEN $4::bigint END
    FROM unnest($1::bigint[], $2::text[], $3::boolean[]) AS new (seq, user_id, has_read)
    ON CONFLICT (seq, user_id) DO UPDATE SET read_at = coalesce(receipts.read_at, excluded.read_at)"""

_INSERT_UNTOLD = "INSERT INTO untold_reads (seq, user_id) SELECT * FROM unnest($1::bigint[], $2::text[])"

_TAKE_UNTOLD = """
    WITH oldest AS (SELECT seq, user_id FROM untold_reads ORDER BY seq, user_id LIMIT $1),
    taken AS (DELETE FROM untold_reads USING oldest
              WHERE untold_reads.seq = oldest.seq AND untold_reads.user_id = oldest.user_id
              RETURNING untold_reads.seq, untold_reads.user_id)
    SELECT conversation_id, sender, msg_id, user_id FROM taken JOIN messages USING (seq) ORDER BY seq, user_id"""

_UPSERT_CURSORS = """
    INSERT INTO read_cursors (user_id, conversation_id, read_seq)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
    ON CONFLICT (user_id, conversation_id) DO UPDATE
    SET read_seq = greatest(read_cursors.read_seq, excluded.read_seq)"""

_AUDIT_RECALLS = """
    INSERT INTO recalls (seq, conversation_id, sender, msg_id, msg_type, stored_at, recalled_at, body)
    SELECT seq, conversation_id, sender, msg_id, msg_type, stored_at, $2::bigint, CASE WHEN $3::boolean THEN body END
    FROM messages WHERE seq = ANY($1::bigint[])"""

_RECALL = "UPDATE messages SET recalled_at = $2::bigint, body = '[]' WHERE seq = ANY($1::bigint[])"
_FORGET_SEARCH = "DELETE FROM search_documents WHERE seq = ANY($1::bigint[])"


_APPLIED = """
    SELECT applied_change, EXISTS (SELECT FROM applied_changes WHERE change > applied_change) FROM publication"""

_NOTE_AHEAD = """
    INSERT INTO applied_changes (change)
    SELECT change FROM unnest($1::bigint[]) AS new (change), publication WHERE change > applied_change
    ON CONFLICT DO NOTHING"""

# The second statement sees the rows of the first one. Usually there is no gap, and it takes all of them out again.
_CLOSE_GAPS = """
    WITH RECURSIVE run (change) AS (
        SELECT applied_change FROM publication
        UNION ALL
        SELECT applied_changes.change FROM run JOIN applied_changes ON applied_changes.change = run.change + 1),
    reached AS (SELECT max(change) AS change FROM run),
    gone AS (DELETE FROM applied_changes USING reached WHERE applied_changes.change <= reached.change)
    UPDATE publication SET applied_change = reached.change FROM reached WHERE applied_change < reached.change"""

_MAX_BIGINT = 2**63 - 1


class Archive(PublicationTables):
    """All statements of a store that writes, on the connection that holds the locks of its groups.

    A store that lost these locks has lost this connection with them. So it cannot commit anything any more. Every
    method raises DatabaseUnavailable when the connection is gone or the server is in trouble. It raises ItemRefused
    when PostgreSQL cannot store a value, or cannot even take it as a parameter. It raises StatementTooSlow, which is a
    DatabaseUnavailable, when a statement about the items of a batch was cancelled. Waiting for the lock is no such one.
    """

    def __init__(self, connection: Connection, *, keep_recalled_text: bool = False) -> None:
        super().__init__(connection)
        self._keep_recalled_text = keep_recalled_text

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit on leaving. The lock of the log is held until then, so seqs become visible in their order."""
        async with translated(), begun(self._connection):
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", SEQ_LOCK)
            yield

    async def draw(self, count: int) -> list[int]:
        """Return the next `count` seqs, rising; only inside `transaction`."""
        async with translated():
            rows = await self._connection.fetch("SELECT nextval('message_seq') FROM generate_series(1, $1)", count)
        return [row[0] for row in rows]

    async def conversations(self, conversation_ids: Collection[str]) -> set[str]:
        """Return those of `conversation_ids` that exist."""
        rows = await self._fetch(
            "SELECT conversation_id FROM conversations WHERE conversation_id = ANY($1::text[])", list(conversation_ids)
        )
        return {row[0] for row in rows}

    async def rosters(self, session_ids: Collection[str]) -> dict[str, Roster]:
        """Return the rosters of those sessions that are known."""
        found: dict[str, Roster] = {}
        members: dict[str, dict[str, int]] = {}
        for session_id, version, is_deleted, user_id, joined_seq in await self._fetch(_FIND_ROSTERS, list(session_ids)):
            if session_id not in found:
                members[session_id] = {}
                found[session_id] = Roster(version, is_deleted, members[session_id])
            if user_id is not None:
                members[session_id][user_id] = joined_seq
        return found

    async def changed_sessions(self, versions: Mapping[str, int | None]) -> list[str]:
        """Return those of the sessions that have another version than the one given; None: there is no such session.

        Inside `transaction` no other store changes them any more.
        """
        return [row[0] for row in await self._fetch(_FIND_CHANGED, *_columns(versions.items(), 2))]

    async def any_recalled(self, seqs: Collection[int]) -> bool:
        """Tell whether any of these messages is recalled; inside `transaction` no other store recalls one any more."""
        statement = "SELECT EXISTS (SELECT FROM messages WHERE seq = ANY($1::bigint[]) AND recalled_at IS NOT NULL)"
        return bool((await self._fetch(statement, list(seqs)))[0][0])

    async def places(self, keys: Collection[tuple[str, str]]) -> list[Place]:
        """Return the rows with these senders and msg_ids."""
        return [Place(*row) for row in await self._fetch(_FIND_PLACES, *_columns(keys, 2))]

    async def sent_bodies(self, limits: Mapping[int, int]) -> dict[int, str]:
        """Return, by seq, the body as it was sent (JSON text); without rows where it has more bytes than the limit."""
        return {row[0]: row[1] for row in await self._fetch(_FIND_SENT_BODIES, *_columns(limits.items(), 2))}

    async def places_in(self, keys: Collection[tuple[str, str]]) -> list[Place]:
        """Return the rows in these conversations with these msg_ids, whoever sent them."""
        return [Place(*row) for row in await self._fetch(_FIND_PLACES_IN, *_columns(keys, 2))]

    async def earlier_spans(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], tuple[Span, ...]]:
        """Return the memberships that are over, by conversation and user."""
        return _spans(await self._fetch(_FIND_SPANS, *_columns(keys, 2)))

    async def spans_left_since(self, seqs: Mapping[str, int]) -> dict[tuple[str, str], tuple[Span, ...]]:
        """Return, by conversation and user, the memberships that ended at or after the seq given for a conversation."""
        return _spans(await self._fetch(_FIND_SPANS_LEFT, *_columns(seqs.items(), 2)))

    async def receipts(self, keys: Collection[tuple[int, str]]) -> dict[tuple[int, str], bool]:
        """Return which of these messages these users have received, and whether they have read them too."""
        rows = await self._fetch(_FIND_RECEIPTS, *_columns(keys, 2))
        return {(seq, user_id): has_read for seq, user_id, has_read in rows}

    async def shared_files(self, asks: Collection[tuple[str, str]]) -> dict[tuple[str, str], Collection[int]] | None:
        """Return, by file and user, up to ten messages with the file, not recalled, that the user may see.

        None when that takes longer than SHARED_FILES_MS.
        """
        found: dict[tuple[str, str], Collection[int]] = {}
        try:
            async with self._within(SHARED_FILES_MS):
                rows = await self._fetch(_FIND_SHARED_FILES, *_columns(asks, 2))
        except StatementTooSlow:
            return None
        for file_id, user_id, seq in rows:
            found[file_id, user_id] = {*found.get((file_id, user_id), ()), seq}
        return found

    @asynccontextmanager
    async def _within(self, limit_ms: int) -> AsyncIterator[None]:
        """Give the statements of the block this time; outside of `transaction`, at whose end the time-out would end."""
        async with translated(), begun(self._connection):
            await self._connection.execute(f"SET LOCAL statement_timeout = {limit_ms}")
            yield

    async def write(self, writes: Writes) -> None:
        """Write what a batch changes, inside `transaction`: one statement for each table that it touches."""
        async with translated(slow=StatementTooSlow):
            for statement, *arguments in (*_statements(writes), *self._recalls(writes)):
                await self._connection.execute(statement, *arguments)

    def _recalls(self, writes: Writes) -> Iterable[tuple[Any, ...]]:
        """Yield the statements that recall messages, also messages of this batch.

        The audit comes first, as it copies the body that is then removed.
        """
        if writes.recalled:
            yield _AUDIT_RECALLS, writes.recalled, writes.now, self._keep_recalled_text
            yield _RECALL, writes.recalled, writes.now
            yield _FORGET_SEARCH, writes.recalled

    async def ping(self) -> None:
        """Raise DatabaseUnavailable unless the connection works."""
        await self._fetch("SELECT 1")

    async def has_untold(self) -> bool:
        """Tell whether any author is still to be told that a message was read."""
        return bool((await self._fetch("SELECT EXISTS (SELECT FROM untold_reads)"))[0][0])

    async def take_untold(self, limit: int) -> list[PendingRead]:
        """Take out up to `limit` of what authors are still to be told, oldest messages first; in `transaction`."""
        return [PendingRead(*row) for row in await self._fetch(_TAKE_UNTOLD, limit)]

    async def applied(self) -> Progress:
        """Return how much of session-api's log of changes is applied, by whichever store."""
        return Progress(*(await self._fetch(_APPLIED))[0])

    async def note_applied(self, changes: Iterable[int]) -> None:
        """Note that these changes of session-api are applied; in `transaction`, and only after `follow`.

        Passes over what is no number of a change. An item must not be refused any more here.
        """
        numbers = [change for change in changes if 0 < change <= _MAX_BIGINT]
        async with translated():
            await self._connection.execute(_NOTE_AHEAD, numbers)
            await self._connection.execute(_CLOSE_GAPS)


def _statements(writes: Writes) -> Iterable[tuple[Any, ...]]:
    """Yield the statements that are needed, each with its arguments; later ones depend on earlier ones."""
    if writes.conversations:
        yield _INSERT_CONVERSATIONS, writes.conversations, writes.now
    if writes.sessions:
        sessions = [
            (one.session_id, one.session_name, one.session_type, one.version, one.at if one.deleted else None)
            for one in writes.sessions.values()
        ]
        yield _UPSERT_SESSIONS, *_columns(sessions, 5), writes.now
    if writes.members:
        yield _UPSERT_MEMBERS, *_columns([(*key, left_seq) for key, left_seq in writes.members.items()], 4)
    if writes.rows:
        yield _INSERT_ROWS, *_columns(writes.rows, len(LogRow._fields))
        newest = {row.conversation_id: row.seq for row in writes.rows if row.is_chat}
        yield _TOUCH_CONVERSATIONS, list(newest), list(newest.values())
    if writes.files:
        yield _INSERT_FILES, *_columns(writes.files, 2)
    if writes.addressees:
        yield _INSERT_ADDRESSEES, *_columns(writes.addressees, 2)
    if writes.receipts:
        receipts = [(*key, has_read) for key, has_read in writes.receipts.items()]
        yield _UPSERT_RECEIPTS, *_columns(receipts, 3), writes.now
    if writes.untold:
        yield _INSERT_UNTOLD, *_columns(writes.untold, 2)
    if writes.cursors:
        yield _UPSERT_CURSORS, *_columns([(*key, seq) for key, seq in writes.cursors.items()], 3)


def _spans(rows: Iterable[Any]) -> dict[tuple[str, str], tuple[Span, ...]]:
    found: dict[tuple[str, str], tuple[Span, ...]] = {}
    for conversation_id, user_id, joined_seq, left_seq in rows:
        key = (conversation_id, user_id)
        found[key] = (*found.get(key, ()), Span(joined_seq, left_seq))
    return found


def _columns(rows: Collection[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]

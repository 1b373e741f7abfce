"""All SQL of message-store: the hot statements of the leader on its own connection, the reads of everybody."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

import asyncpg
from tlim_runtime.database import is_unavailable
from tlim_runtime.outages import DatabaseUnavailable

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_LEADER_LOCK = 0x746C_696D_0001  # advisory locks are plain numbers; these begin with "tlim"
SEQ_LOCK = 0x746C_696D_0002

_REFUSALS = ("22", "23", "54")
"""SQLSTATE classes that blame the row: its data, a constraint, a size limit. Everything else is no fault of the row."""

_INSERT_CONVERSATIONS = """
    WITH made AS (
        INSERT INTO conversations (conversation_id, created_at)
        SELECT conversation_id, $2 FROM unnest($1::text[]) AS new (conversation_id)
        ON CONFLICT DO NOTHING
        RETURNING conversation_id)
    INSERT INTO members (conversation_id, user_id, joined_seq)
    SELECT DISTINCT conversation_id, split_part(conversation_id, ':', side), 0
    FROM made, unnest(ARRAY[2, 3]) AS side"""

# The ids come first: what they do not take is a resend. Their seqs are drawn after the sort, so the order of a batch is
# the order of its seqs.
_INSERT_MESSAGES = """
    WITH new AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::text[], $9::text[]) WITH ORDINALITY
            AS new (conversation_id, sender, recipient, msg_id, msg_type, version, body, msg_time, location, position)),
    fresh AS (
        INSERT INTO message_ids (msg_id, sender, seq)
        SELECT msg_id, sender, nextval('message_seq') FROM (SELECT msg_id, sender FROM new ORDER BY position) AS sorted
        ON CONFLICT DO NOTHING
        RETURNING msg_id, sender, seq),
    firsts AS (SELECT DISTINCT ON (sender, msg_id) * FROM new ORDER BY sender, msg_id, position)
    INSERT INTO messages
        (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body, msg_time,
         location, stored_at)
    SELECT seq, conversation_id, sender, recipient, 1, msg_id, msg_type, true, version, body::json, msg_time, location,
           $10
    FROM firsts JOIN fresh USING (sender, msg_id)
    RETURNING seq, sender, msg_id"""

_TOUCH_CONVERSATIONS = """
    UPDATE conversations SET last_seq = newest.seq
    FROM (SELECT conversation_id, max(seq) AS seq
          FROM unnest($1::text[], $2::bigint[]) AS new (conversation_id, seq) GROUP BY 1) AS newest
    WHERE newest.conversation_id = conversations.conversation_id"""

_FIND_MESSAGES = """
    SELECT messages.seq, stored_at, messages.sender, messages.msg_id
    FROM unnest($1::text[], $2::text[]) AS asked (sender, msg_id)
    JOIN message_ids USING (sender, msg_id) JOIN messages ON messages.seq = message_ids.seq"""

_INSERT_FILES = """
    INSERT INTO message_files (file_id, seq)
    SELECT file_id, seq FROM unnest($1::text[], $2::bigint[]) AS new (file_id, seq)"""

_MESSAGES_AFTER = """
    SELECT seq, conversation_id, sender, recipient, msg_id, msg_type, version, body, msg_time, stored_at
    FROM messages WHERE seq > $1 ORDER BY seq LIMIT $2"""


class NewMessage(NamedTuple):
    """A message about to be stored, in the words of the table; `body` is JSON text."""

    conversation_id: str
    sender: str
    recipient: str | None
    msg_id: str
    msg_type: str
    version: str
    body: str
    msg_time: str
    location: str
    file_ids: Sequence[str] = ()


class Kept(NamedTuple):
    """A message that is in the table: its place, when it was stored (ms), and whether this call put it there."""

    seq: int
    stored_at: int
    is_new: bool


class Refused(NamedTuple):
    """A message that PostgreSQL cannot hold, and why."""

    reason: str


class StoredMessageRow(NamedTuple):
    """A message as it lies in the table; `body` is JSON text."""

    seq: int
    conversation_id: str
    sender: str
    recipient: str | None
    msg_id: str
    msg_type: str
    version: str
    body: str
    msg_time: str
    stored_at: int


class _RowRefused(Exception):  # noqa: N818 - a verdict, not a failure
    """PostgreSQL refused what a statement wanted to write."""


async def try_to_lead(connection: Connection) -> bool:
    """Take the leader's lock unless another session holds it; it lasts as long as this connection."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK))


class Archive:
    """The leader's hands: every statement on the connection that holds the leader's lock.

    Who has lost the lock has lost this connection with it, so a leader of yesterday cannot commit anything. Every
    method raises DatabaseUnavailable when the connection is gone or the server is in trouble.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def unknown_conversations(self, conversation_ids: Collection[str]) -> set[str]:
        """Return those of `conversation_ids` that have no row yet."""
        if not conversation_ids:
            return set()
        async with _translated():
            rows = await self._connection.fetch(
                "SELECT conversation_id FROM conversations WHERE conversation_id = ANY($1::text[])",
                list(conversation_ids),
            )
        return set(conversation_ids) - {row[0] for row in rows}

    async def record(
        self, messages: Sequence[NewMessage], *, new_conversations: Collection[str], stored_at: int, published: int
    ) -> list[Kept | Refused]:
        """Store a batch in one transaction and return what became of each message, in the order given.

        Their seqs rise in that order. When PostgreSQL refuses a row, the batch is stored again row by row, each in
        its own savepoint, so that only the row at fault is left out. `published` is noted in the same transaction.
        """
        parts = [(messages, new_conversations)]
        async with _translated():
            try:
                return await self._record(parts, stored_at, published)
            except _RowRefused:
                needed = [{message.conversation_id}.intersection(new_conversations) for message in messages]
                singles = [([message], own) for message, own in zip(messages, needed, strict=True)]
                return await self._record(singles, stored_at, published, isolate=True)

    async def _record(
        self,
        parts: Sequence[tuple[Sequence[NewMessage], Collection[str]]],
        stored_at: int,
        published: int,
        *,
        isolate: bool = False,
    ) -> list[Kept | Refused]:
        outcomes: list[Kept | Refused] = []
        async with self._connection.transaction():
            # Whoever draws a seq holds this until the commit: seqs become visible in their order, none later.
            await self._connection.execute("SELECT pg_advisory_xact_lock($1)", SEQ_LOCK)
            for messages, new_conversations in parts:
                if isolate:
                    outcomes += await self._insert_in_savepoint(messages, new_conversations, stored_at)
                else:
                    outcomes += await self._insert(messages, new_conversations, stored_at)
            await self.save_published(published)
        return outcomes

    async def _insert_in_savepoint(
        self, messages: Sequence[NewMessage], new_conversations: Collection[str], stored_at: int
    ) -> Sequence[Kept | Refused]:
        try:
            async with self._connection.transaction():
                return await self._insert(messages, new_conversations, stored_at)
        except _RowRefused as refusal:
            return [Refused(str(refusal))]

    async def _insert(
        self, messages: Sequence[NewMessage], new_conversations: Collection[str], stored_at: int
    ) -> list[Kept]:
        try:
            if new_conversations:
                await self._connection.execute(_INSERT_CONVERSATIONS, sorted(new_conversations), stored_at)
            columns = [list(column) for column in list(zip(*messages, strict=True))[:9]]
            inserted = await self._connection.fetch(_INSERT_MESSAGES, *columns, stored_at)
            fresh = {(sender, msg_id): seq for seq, sender, msg_id in inserted}
            touched = [(one.conversation_id, fresh[one.sender, one.msg_id]) for one in messages
                       if (one.sender, one.msg_id) in fresh]  # fmt: skip
            await self._connection.execute(
                _TOUCH_CONVERSATIONS, *([list(column) for column in zip(*touched, strict=True)] or [[], []])
            )
            files = [
                (file_id, fresh[message.sender, message.msg_id])
                for message in messages if message.file_ids and (message.sender, message.msg_id) in fresh
                for file_id in message.file_ids
            ]  # fmt: skip
            if files:
                await self._connection.execute(_INSERT_FILES, [file[0] for file in files], [file[1] for file in files])
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if _blames_the_row(error):
                raise _RowRefused(str(error).splitlines()[0]) from error
            raise
        return await self._places(messages, fresh, stored_at)

    async def _places(
        self, messages: Sequence[NewMessage], fresh: dict[tuple[str, str], int], stored_at: int
    ) -> list[Kept]:
        if len(fresh) == len(messages):
            return [Kept(fresh[message.sender, message.msg_id], stored_at, is_new=True) for message in messages]
        asked = [(message.sender, message.msg_id) for message in messages]
        rows = await self._connection.fetch(_FIND_MESSAGES, [key[0] for key in asked], [key[1] for key in asked])
        places = {(row["sender"], row["msg_id"]): (row["seq"], row["stored_at"]) for row in rows}
        # pop: of several copies in one batch, the first is the new one
        return [Kept(*places[key], is_new=fresh.pop(key, None) is not None) for key in asked]

    async def published(self) -> int:
        """Return the noted seq up to which everything is known to be published; 0: nothing yet."""
        async with _translated():
            return int(await self._connection.fetchval("SELECT published_seq FROM publication"))

    async def save_published(self, seq: int) -> None:
        """Note that everything up to `seq` is published."""
        async with _translated():
            await self._connection.execute("UPDATE publication SET published_seq = $1", seq)

    async def newest_seq(self) -> int:
        """Return the newest seq in the table; 0: it is empty."""
        async with _translated():
            return int(await self._connection.fetchval("SELECT coalesce(max(seq), 0) FROM messages"))

    async def last_seq_before(self, window_ms: int) -> int:
        """Return the newest seq that was stored more than `window_ms` before the newest row; 0: there is none.

        Walks back along the primary key, over the rows inside the window only.
        """
        statement = """
            SELECT seq FROM messages
            WHERE stored_at < (SELECT stored_at FROM messages ORDER BY seq DESC LIMIT 1) - $1::bigint
            ORDER BY seq DESC LIMIT 1"""
        async with _translated():
            return int(await self._connection.fetchval(statement, window_ms) or 0)

    async def messages_after(self, seq: int, limit: int) -> list[StoredMessageRow]:
        """Return up to `limit` messages after `seq`, oldest first."""
        async with _translated():
            return [StoredMessageRow(*row) for row in await self._connection.fetch(_MESSAGES_AFTER, seq, limit)]

    async def ping(self) -> None:
        """Ask the server for an answer on the connection that holds the lock."""
        async with _translated():
            await self._connection.execute("SELECT 1")


def _blames_the_row(error: asyncpg.PostgresError | asyncpg.InterfaceError) -> bool:
    # asyncpg itself refuses values that cannot be encoded, e.g. half a surrogate pair: that has no server's SQLSTATE
    sqlstate = getattr(error, "sqlstate", None)
    return isinstance(error, ValueError) or (isinstance(sqlstate, str) and sqlstate.startswith(_REFUSALS))


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        if isinstance(error, TimeoutError) or is_unavailable(error):
            raise DatabaseUnavailable(str(error) or type(error).__name__) from error
        raise

"""The SQL of publishing: whose turn it is, what is noted as published, and rows that are read back."""

from contextlib import suppress

import asyncpg
from tlim_runtime.outages import DatabaseUnavailable
from tlim_runtime.transactions import Connection

from message_store.blame import translated
from message_store.errors import StatementTooSlow
from message_store.locks import PUBLICATION_LOCK
from message_store.models import Audience
from message_store.values import DeliveredRow, LogRow

# Several statements in one round trip. Each sees what was committed before it, so the second one sees what the store
# that had the lock before us has noted.
_FOLLOW = """
    SELECT pg_advisory_lock({lock});
    SELECT FROM publication WHERE published_seq = {seq}"""

_SAVE_PUBLISHED = """
    BEGIN;
    SET LOCAL synchronous_commit = off;
    UPDATE publication SET published_seq = {seq};
    COMMIT"""

_UNLOCK = "SELECT pg_advisory_unlock({lock})"

_MESSAGES_AFTER = """
    SELECT seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body, msg_time,
           location, stored_at, recalled_at IS NOT NULL AS is_recalled,
           CASE audience
               WHEN $3::smallint THEN ARRAY[recipient]
               WHEN $4::smallint THEN ARRAY(
                   SELECT user_id FROM members
                   WHERE members.conversation_id = messages.conversation_id AND user_id <> sender
                       AND joined_seq <= messages.seq AND (left_seq IS NULL OR left_seq >= messages.seq)
                   ORDER BY joined_seq, user_id)
                   || ARRAY(SELECT user_id FROM addressees WHERE addressees.seq = messages.seq ORDER BY user_id)
               WHEN $5::smallint THEN ARRAY(
                   SELECT user_id FROM addressees WHERE addressees.seq = messages.seq ORDER BY user_id)
               ELSE '{}'
           END AS recipients
    FROM messages WHERE seq > $1 AND seq < $6 ORDER BY seq LIMIT $2"""


class PublicationTables:
    """The part of the archive that Publication needs; see Archive for the connection and for what is raised."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._may_publish = False

    async def follow(self, first: int) -> bool:
        """Take the lock of publication, last in `transaction`: nobody else commits until it is given back.

        Return whether all seqs before `first`, the first one of this transaction, are noted as published.
        """
        return await self._enter_publication(_FOLLOW.format(lock=PUBLICATION_LOCK, seq=first - 1)) == "SELECT 1"

    async def enter_publication(self) -> None:
        """Take the lock of publication outside of `transaction`: nobody commits until it is given back."""
        await self._enter_publication(f"SELECT pg_advisory_lock({PUBLICATION_LOCK})")

    async def _enter_publication(self, statement: str) -> str:
        self._may_publish = True  # before we have it: if the server cancels us, it may have given us the lock
        async with translated():
            return await self._connection.execute(statement)

    async def leave_publication(self) -> None:
        """Give the lock of publication back, if we may have it. If that fails, the connection ends, and so the lock."""
        if self._may_publish:
            with suppress(DatabaseUnavailable):
                await self._in_publication(_UNLOCK.format(lock=PUBLICATION_LOCK))
            self._may_publish = False

    async def published(self) -> int:
        """Return the saved seq up to which everything is known to be published; 0: nothing yet."""
        return int((await self._fetch("SELECT published_seq FROM publication"))[0][0])

    async def save_published(self, seq: int, *, leave: bool) -> None:
        """Note that everything up to `seq` is published, and then give the lock of publication back, with `leave`.

        The note does not wait for the disk. If a crash takes it, something is published once more.
        """
        note = _SAVE_PUBLISHED.format(seq=seq)
        await self._in_publication(f"{note}; {_UNLOCK.format(lock=PUBLICATION_LOCK)}" if leave else note)
        self._may_publish = self._may_publish and not leave

    async def _in_publication(self, statements: str) -> None:
        try:
            async with translated():
                await self._connection.execute(statements)
        except BaseException:
            self._connection.terminate()
            raise

    async def last_seq_before(self, window_ms: int) -> int:
        """Return the newest seq that was stored more than `window_ms` before the newest row; 0: there is none.

        Walks back along the primary key, over the rows inside the window only.
        """
        statement = """
            SELECT seq FROM messages
            WHERE stored_at < (SELECT stored_at FROM messages ORDER BY seq DESC LIMIT 1) - $1::bigint
            ORDER BY seq DESC LIMIT 1"""
        rows = await self._fetch(statement, window_ms)
        return int(rows[0][0]) if rows else 0

    async def messages_after(self, seq: int, limit: int, before: int) -> list[DeliveredRow]:
        """Return up to `limit` rows of the log between two seqs, oldest first, each with all its recipients."""
        kinds = (Audience.RECIPIENT, Audience.MEMBERS, Audience.ADDRESSEES)
        found = await self._fetch(_MESSAGES_AFTER, seq, limit, *kinds, before)
        return [
            DeliveredRow(LogRow(*fields)._replace(audience=Audience(fields[4])), is_recalled, recipients)
            for *fields, is_recalled, recipients in found
        ]

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        async with translated(slow=StatementTooSlow):
            return await self._connection.fetch(statement, *arguments)

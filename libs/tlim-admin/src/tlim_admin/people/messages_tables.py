"""The SQL of message-store's database about one person."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from tlim_runtime.transactions import Connection, begun

SEQ_LOCK = 0x746C_696D_0002  # message_store.locks: the store writes no batch meanwhile, and the index of search neither

_MESSAGES = """
    SELECT seq, conversation_id, sender, recipient, msg_id, msg_type, body::text AS body, msg_time, location, stored_at,
           recalled_at
    FROM members JOIN messages USING (conversation_id)
    WHERE user_id = $1 AND is_chat AND seq >= joined_seq AND (left_seq IS NULL OR seq <= left_seq)
    ORDER BY seq"""

_REPORTS = """
    SELECT seq, conversation_id, msg_id, msg_type, body::text AS body, stored_at
    FROM messages WHERE sender = $1 AND NOT is_chat ORDER BY seq"""

_CURSORS = "SELECT conversation_id, read_seq FROM read_cursors WHERE user_id = $1 ORDER BY conversation_id"

_WRITTEN = "SELECT count(*) FROM messages WHERE sender = $1 AND is_chat AND recalled_at IS NULL"

_EMPTY = """
    UPDATE messages SET recalled_at = $2, body = '[]'
    WHERE seq IN (
        SELECT seq FROM messages WHERE sender = $1 AND is_chat AND recalled_at IS NULL AND seq > $3
        ORDER BY seq LIMIT $4)
    RETURNING seq"""

_FORGET_SEARCH = "DELETE FROM search_documents WHERE seq = ANY($1::bigint[])"

# A recalled message may have been kept for the audit (TLIM_KEEP_RECALLED_TEXT).
_FORGET = (
    "UPDATE recalls SET body = NULL WHERE sender = $1 AND body IS NOT NULL",
    "DELETE FROM read_cursors WHERE user_id = $1",
    "DELETE FROM mailboxes WHERE user_id = $1",
)

_PRESENT = "SELECT EXISTS (SELECT FROM mailboxes WHERE user_id = $1 AND sessions <> '{}')"

_CARRIED = """
    SELECT DISTINCT file_id FROM message_files JOIN messages USING (seq)
    WHERE file_id = ANY($1::text[]) AND recalled_at IS NULL"""


async def seen(connection: Connection, user_id: str) -> AsyncIterator[dict[str, Any]]:
    """Give the chat messages that the person can see, their own included; `body` is JSON text. In a transaction."""
    async for row in connection.cursor(_MESSAGES, user_id):
        yield dict(row)


async def reports(connection: Connection, user_id: str) -> AsyncIterator[dict[str, Any]]:
    """Give the receipts and recalls that the person sent; `body` is JSON text. In a transaction."""
    async for row in connection.cursor(_REPORTS, user_id):
        yield dict(row)


async def cursors(connection: Connection, user_id: str) -> list[dict[str, Any]]:
    """Return up to where the person has read each conversation."""
    return [dict(row) for row in await connection.fetch(_CURSORS, user_id)]


async def written(connection: Connection, user_id: str) -> int:
    """Return how many messages of the person still have their content."""
    return int(await connection.fetchval(_WRITTEN, user_id))


async def empty_messages(connection: Connection, user_id: str, now: int, after: int, limit: int) -> list[int]:
    """Take the content out of up to `limit` messages of the person, as a recall does; return their seqs in order.

    They are the oldest ones behind the seq `after`: emptied ones before it are not read again. The rows stay, and with
    them the order and the seqs of everybody's history.
    """
    async with begun(connection):
        await connection.execute("SET LOCAL lock_timeout = '30s'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", SEQ_LOCK)
        seqs = sorted(row["seq"] for row in await connection.fetch(_EMPTY, user_id, now, after, limit))
        await connection.execute(_FORGET_SEARCH, seqs)
    return seqs


async def is_present(connection: Connection, user_id: str) -> bool:
    """Tell whether a bridge still counts sessions of the person."""
    return bool(await connection.fetchval(_PRESENT, user_id))


async def forget(connection: Connection, user_id: str) -> None:
    """Remove how far the person has read and taken over, and the texts of recalled messages that were kept."""
    async with begun(connection):
        for statement in _FORGET:
            await connection.execute(statement, user_id)


async def carried(connection: Connection, file_ids: Sequence[str]) -> set[str]:
    """Return those of these files that are in a message which was not recalled."""
    return {row["file_id"] for row in await connection.fetch(_CARRIED, file_ids)}

"""The SQL of a message's way: what the log has of it, without its text."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

# The names are the fields of schemas.LogEntry. Several senders may use the same msg_id.
_ROWS = text("""
    SELECT messages.seq, messages.sender, msg_type, conversation_id, stored_at, recalled_at,
           count(delivered_at) AS received, min(delivered_at) AS first_received_at,
           max(delivered_at) AS last_received_at, count(read_at) AS read, min(read_at) AS first_read_at
    FROM (SELECT seq FROM message_ids WHERE msg_id = :msg_id ORDER BY seq DESC LIMIT :limit) AS named
    JOIN messages ON messages.seq = named.seq
    LEFT JOIN receipts ON receipts.seq = messages.seq
    GROUP BY messages.seq ORDER BY messages.seq DESC""")


class WayReader:
    """The log, on one database session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def rows(self, msg_id: str, limit: int) -> Sequence[Row[Any]]:
        """Return the newest rows with this msg_id."""
        return (await self._session.execute(_ROWS, {"msg_id": msg_id, "limit": limit})).all()

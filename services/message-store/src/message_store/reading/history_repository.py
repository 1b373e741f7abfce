"""The SQL of history: one conversation, for the time that somebody was in it."""

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from message_store.models import Member
from message_store.reading.slice_repository import Slice, read_slice, slice_statement

# One range of ix_messages_history for each time of membership; hardly anybody has more than one. The bounds are pairs,
# which fit that index only: the primary key, in the same order, would lead through the messages of everybody else.
_CANDIDATES = """
    SELECT seen.seq
    FROM members CROSS JOIN LATERAL (
        SELECT seq FROM messages
        WHERE messages.conversation_id = :conversation_id AND is_chat
            AND (messages.conversation_id, seq) {range}
            AND (messages.conversation_id, seq) >= (:conversation_id, joined_seq)
            AND (messages.conversation_id, seq) <= (:conversation_id, coalesce(left_seq, 9223372036854775807))
        ORDER BY seq {order} LIMIT :one_more) AS seen
    WHERE members.conversation_id = :conversation_id AND user_id = :user_id
    ORDER BY seen.seq {order} LIMIT :one_more"""

_BEFORE = slice_statement(_CANDIDATES.format(range="< (:conversation_id, :before)", order="DESC"), newest_first=True)
_AFTER = slice_statement(_CANDIDATES.format(range="> (:conversation_id, :after)", order="ASC"))

# How many rows lie between such bounds PostgreSQL can only guess, and it guesses few: then it likes to fetch and sort
# all of them, years of a conversation. Without bitmaps it goes along the index and stops when the page is full.
_ALONG_THE_INDEX = text("SET LOCAL enable_bitmapscan = off")

_END = 2**63 - 1


class HistoryReader:
    """Pages of a conversation, each one range of an index, on the session of a request."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def conversations_of(self, user_id: str, conversation_ids: Collection[str]) -> set[str]:
        """Return those of the conversations that the user is, or was, in."""
        query = select(Member.conversation_id).where(
            Member.user_id == user_id, col(Member.conversation_id).in_(conversation_ids)
        )
        return set((await self._session.scalars(query)).all())

    async def messages_before(self, user_id: str, conversation_id: str, before: int | None, limit: int) -> Slice:
        """Return what the user may see of a conversation older than seq `before` (None: its end), newest first."""
        place = {"user_id": user_id, "conversation_id": conversation_id}
        await self._session.execute(_ALONG_THE_INDEX)
        return await read_slice(self._session, _BEFORE, limit, {**place, "before": _END if before is None else before})

    async def messages_after(self, user_id: str, conversation_id: str, after: int, limit: int) -> Slice:
        """Return what the user may see of a conversation newer than seq `after`, oldest first."""
        place = {"user_id": user_id, "conversation_id": conversation_id}
        await self._session.execute(_ALONG_THE_INDEX)
        return await read_slice(self._session, _AFTER, limit, {**place, "after": after})

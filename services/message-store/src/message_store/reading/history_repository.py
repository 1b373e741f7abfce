"""The SQL of history: one conversation, as far as the reader was in it."""

from collections.abc import Collection

from tlim_runtime.transactions import Connection

from message_store.reading.slice_repository import Slice, go_along_the_indexes, read_slice, slice_statement
from message_store.statements import NamedStatement

_END = 2**63 - 1

# One range of ix_messages_history for each membership. Few readers have more than one in a conversation.
_CANDIDATES = """
    SELECT seen.seq
    FROM members CROSS JOIN LATERAL (
        SELECT seq FROM messages
        WHERE is_chat AND (conversation_id, seq) > (:conversation_id, {after})
            AND (conversation_id, seq) < (:conversation_id, {before})
        ORDER BY conversation_id {order}, seq {order} LIMIT :one_more) AS seen
    WHERE members.conversation_id = :conversation_id AND user_id = :user_id
    ORDER BY seen.seq {order} LIMIT :one_more"""

_JOINED = "joined_seq - 1"
_LEFT = f"coalesce(left_seq + 1, {_END})"

_BEFORE = slice_statement(
    _CANDIDATES.format(after=_JOINED, before=f"least({_LEFT}, :before)", order="DESC"), newest_first=True
)
_AFTER = slice_statement(_CANDIDATES.format(after=f"greatest({_JOINED}, :after)", before=_LEFT, order="ASC"))

_MINE = NamedStatement("""
    SELECT conversation_id FROM members
    WHERE user_id = :user_id AND conversation_id = ANY(CAST(:conversation_ids AS text[]))""")


class HistoryReader:
    """Pages of a conversation, each one range of an index, on the database connection of a request."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def conversations_of(self, user_id: str, conversation_ids: Collection[str]) -> set[str]:
        """Return those of the conversations that the user is or was in."""
        rows = await _MINE.rows(self._connection, user_id=user_id, conversation_ids=list(conversation_ids))
        return {row[0] for row in rows}

    async def messages_before(self, user_id: str, conversation_id: str, before: int | None, limit: int) -> Slice:
        """Return what the user may see of a conversation older than seq `before` (None: its end), newest first."""
        place = {"user_id": user_id, "conversation_id": conversation_id}
        await go_along_the_indexes(self._connection)
        return await read_slice(self._connection, _BEFORE, limit, **place, before=_END if before is None else before)

    async def messages_after(self, user_id: str, conversation_id: str, after: int, limit: int) -> Slice:
        """Return what the user may see of a conversation newer than seq `after`, oldest first."""
        place = {"user_id": user_id, "conversation_id": conversation_id}
        await go_along_the_indexes(self._connection)
        return await read_slice(self._connection, _AFTER, limit, **place, after=after)

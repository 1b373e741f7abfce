"""The SQL of the list of conversations: the place of each in the list, its last message, its unread count."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from tlim_runtime.transactions import Connection

from message_store.reading.slice_repository import MAX_BYTES, go_along_the_indexes
from message_store.statements import NamedStatement
from message_store.values import COLUMNS, ReadRow

# The place of a conversation in the list is a seq: that of its newest message, or of the reader's joining or leaving.
# After the reader has left, the place stays at the leaving. No two conversations share a place: so a cursor is a seq.
# The LIMIT 1 keeps the planner from reading all conversations of the store to find those of one reader.
# The last message and the unread count are looked up only for what is on the page. Each membership is one range of
# ix_messages_history; this index also contains who sent a message and whether it is recalled.
_PAGE = NamedStatement("""
    WITH latest AS (
        SELECT DISTINCT ON (conversation_id) conversation_id, joined_seq, left_seq
        FROM members WHERE user_id = :user_id ORDER BY conversation_id, joined_seq DESC),
    placed AS (
        SELECT latest.conversation_id, session_name, deleted_at, left_seq,
               coalesce(left_seq, greatest(last_seq, joined_seq)) AS place
        FROM latest CROSS JOIN LATERAL (
            SELECT * FROM conversations WHERE conversations.conversation_id = latest.conversation_id LIMIT 1) AS told),
    page AS MATERIALIZED (
        SELECT placed.*, coalesce(read_seq, 0) AS read_seq
        FROM (SELECT * FROM placed WHERE place > 0 AND place < :before ORDER BY place DESC LIMIT :one_more) AS placed
        LEFT JOIN read_cursors
            ON read_cursors.user_id = :user_id AND read_cursors.conversation_id = placed.conversation_id)
    SELECT page.conversation_id, session_name, deleted_at, left_seq, place, read_seq, unread, last.seq AS last_seq,
           coalesce(octet_length(body::text), 0) AS size
    FROM page
    LEFT JOIN LATERAL (
        SELECT seen.seq FROM members CROSS JOIN LATERAL (
            SELECT seq FROM messages
            WHERE is_chat AND (conversation_id, seq) >= (page.conversation_id, joined_seq)
                AND (conversation_id, seq) <= (page.conversation_id, coalesce(members.left_seq, 9223372036854775807))
            ORDER BY conversation_id DESC, seq DESC LIMIT 1) AS seen
        WHERE members.conversation_id = page.conversation_id AND user_id = :user_id
        ORDER BY seen.seq DESC LIMIT 1) AS last ON true
    LEFT JOIN messages ON messages.seq = last.seq
    CROSS JOIN LATERAL (
        SELECT count(*) AS unread FROM (
            SELECT FROM (
                SELECT sender, recalled_at FROM members CROSS JOIN LATERAL (
                    SELECT sender, recalled_at FROM messages
                    WHERE is_chat
                        AND (conversation_id, seq) > (page.conversation_id, greatest(joined_seq - 1, read_seq))
                        AND (conversation_id, seq)
                            <= (page.conversation_id, coalesce(members.left_seq, 9223372036854775807))
                    ORDER BY conversation_id DESC, seq DESC LIMIT :look_at) AS behind
                WHERE members.conversation_id = page.conversation_id AND user_id = :user_id
                ORDER BY joined_seq DESC LIMIT :look_at) AS looked_at
            WHERE sender <> :user_id AND recalled_at IS NULL
            LIMIT :count_to) AS counted) AS counts
    ORDER BY place DESC""")

_NEWEST = NamedStatement("SELECT coalesce(max(seq), 0) FROM messages")

_BY_SEQ = NamedStatement(f"SELECT {COLUMNS} FROM messages WHERE seq = ANY(:seqs)")  # noqa: S608 - no input


class Entry(NamedTuple):
    """A conversation as the list has it: seqs, 0 or None for none; times in epoch milliseconds."""

    conversation_id: str
    session_name: str | None
    deleted_at: int | None
    left_seq: int | None
    place: int
    read_seq: int
    unread: int
    last_seq: int | None


class ConversationsReader:
    """The conversations of a user, on the database connection of a request."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def newest_seq(self) -> int:
        """Return the newest seq of the log; 0: it is empty."""
        return int((await _NEWEST.row(self._connection))[0])

    async def entries(
        self, user_id: str, before: int, limit: int, *, count_to: int, look_at: int
    ) -> tuple[Sequence[Entry], bool]:
        """Return up to `limit` conversations of the user whose place is before a seq, and whether more follow.

        The newest come first. There are fewer when their last messages are large. Unread messages are counted up to
        `count_to`, among the newest `look_at` of each conversation.
        """
        await go_along_the_indexes(self._connection)
        rows = await _PAGE.rows(
            self._connection, user_id=user_id, before=before, one_more=limit + 1, count_to=count_to, look_at=look_at
        )
        full_at = accumulate((row[-1] for row in rows), initial=0)
        page = [Entry(*row[:-1]) for row, filled in zip(rows[:limit], full_at, strict=False) if filled < MAX_BYTES]
        return page, len(rows) > len(page)

    async def messages(self, seqs: Sequence[int]) -> dict[int, ReadRow]:
        """Return the rows of the log with these seqs."""
        rows = await _BY_SEQ.rows(self._connection, seqs=list(seqs))
        return {row["seq"]: ReadRow(*row) for row in rows}

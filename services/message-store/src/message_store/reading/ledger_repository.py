"""The SQL of the ledger: a message by its msg_id, and who has received and read it."""

from collections.abc import Sequence
from typing import NamedTuple

from tlim_runtime.transactions import Connection

from message_store.statements import NamedStatement
from message_store.values import COLUMNS, ReadRow

_FIND = NamedStatement(f"""
    SELECT {COLUMNS} FROM (
        SELECT messages.*
        FROM message_ids JOIN messages ON messages.seq = message_ids.seq
        JOIN members ON members.conversation_id = messages.conversation_id AND user_id = :user_id
            AND messages.seq >= joined_seq AND messages.seq <= coalesce(left_seq, 9223372036854775807)
        WHERE message_ids.msg_id = :msg_id AND is_chat
            AND (CAST(:sender AS text) IS NULL OR message_ids.sender = :sender)
        ORDER BY messages.seq DESC LIMIT 1) AS found""")  # noqa: S608 - no input

# The receivers of a message are the members at its seq, without its sender. A receiver without a row in receipts has
# not received the message. The LIMIT 1 makes PostgreSQL find that row by the primary key. Its generic plan expects few
# receivers: without the limit it read all receipts of a message for each of 10,000 receivers, which took seconds.
_READERS = """
    FROM members LEFT JOIN LATERAL (
        SELECT delivered_at, read_at FROM receipts
        WHERE receipts.seq = :seq AND receipts.user_id = members.user_id LIMIT 1) AS receipt ON true
    WHERE conversation_id = :conversation_id AND members.user_id <> :sender
        AND :seq >= joined_seq AND :seq <= coalesce(left_seq, 9223372036854775807)"""

_COUNTS = NamedStatement(f"SELECT count(*), count(delivered_at), count(read_at) {_READERS}")

_PAGES = {
    state: NamedStatement(f"""
        SELECT members.user_id, delivered_at, read_at {_READERS} AND {condition} AND members.user_id > :after
        ORDER BY members.user_id LIMIT :limit""")
    for state, condition in {
        None: "true",
        "read": "read_at IS NOT NULL",
        "unread": "read_at IS NULL",
        "undelivered": "delivered_at IS NULL",
    }.items()
}


class Counts(NamedTuple):
    """The number of receivers of a message, and how many of them have received and read it."""

    members: int
    delivered: int
    read: int


class LedgerLine(NamedTuple):
    """When a receiver received and read a message (epoch ms); None: not yet."""

    user_id: str
    delivered_at: int | None
    read_at: int | None


class LedgerReader:
    """Messages and their receipts, on the database connection of a request."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def find_message(self, user_id: str, msg_id: str, sender: str | None) -> ReadRow | None:
        """Return the newest message with that msg_id that the user may see, from one sender or from any (None)."""
        rows = await _FIND.rows(self._connection, user_id=user_id, msg_id=msg_id, sender=sender)
        return ReadRow(*rows[0]) if rows else None

    async def counts(self, message: ReadRow) -> Counts:
        """Return how many have received and read a message."""
        return Counts(*await _COUNTS.row(self._connection, **_receivers(message)))

    async def lines(self, message: ReadRow, state: str | None, after: str, limit: int) -> Sequence[LedgerLine]:
        """Return up to `limit` receivers of a message after a user id, in the order of their ids.

        `state` keeps only receivers who have `read` it, have it `unread`, or for whom it is `undelivered`.
        """
        rows = await _PAGES[state].rows(self._connection, **_receivers(message), after=after, limit=limit)
        return [LedgerLine(*row) for row in rows]


def _receivers(message: ReadRow) -> dict[str, str | int]:
    return {"seq": message.seq, "conversation_id": message.conversation_id, "sender": message.sender}

"""The SQL of the ledger: a message by its msg_id, and who has received and read it."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from message_store.models import Message

_FIND = select(Message).from_statement(
    text("""
    SELECT messages.*
    FROM message_ids JOIN messages ON messages.seq = message_ids.seq
    JOIN members ON members.conversation_id = messages.conversation_id AND user_id = :user_id
        AND messages.seq >= joined_seq AND messages.seq <= coalesce(left_seq, 9223372036854775807)
    WHERE message_ids.msg_id = :msg_id AND is_chat
        AND (CAST(:sender AS text) IS NULL OR message_ids.sender = :sender)
    ORDER BY messages.seq DESC LIMIT 1""")
)

# The receivers of a message are the members at its seq, without its sender. A receiver without a row in receipts has
# not received the message. The LIMIT 1 makes PostgreSQL find that row by the primary key. Its generic plan expects few
# receivers: without the limit it read all receipts of a message for each of 10,000 receivers, which took seconds.
_READERS = """
    FROM members LEFT JOIN LATERAL (
        SELECT delivered_at, read_at FROM receipts
        WHERE receipts.seq = :seq AND receipts.user_id = members.user_id LIMIT 1) AS receipt ON true
    WHERE conversation_id = :conversation_id AND members.user_id <> :sender
        AND :seq >= joined_seq AND :seq <= coalesce(left_seq, 9223372036854775807)"""

_COUNTS = text(f"SELECT count(*), count(delivered_at), count(read_at) {_READERS}")

_PAGES = {
    state: text(f"""
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
    """Messages and their receipts, on the database session of a request."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find_message(self, user_id: str, msg_id: str, sender: str | None) -> Message | None:
        """Return the newest message with that msg_id that the user may see, from one sender or from any (None)."""
        asked = {"user_id": user_id, "msg_id": msg_id, "sender": sender}
        found: Message | None = (await self._session.scalars(_FIND, asked)).one_or_none()
        return found

    async def counts(self, message: Message) -> Counts:
        """Return how many have received and read a message."""
        return Counts(*(await self._session.execute(_COUNTS, _receivers(message))).one())

    async def lines(self, message: Message, state: str | None, after: str, limit: int) -> Sequence[LedgerLine]:
        """Return up to `limit` receivers of a message after a user id, in the order of their ids.

        `state` keeps only receivers who have `read` it, have it `unread`, or for whom it is `undelivered`.
        """
        asked = {**_receivers(message), "after": after, "limit": limit}
        return [LedgerLine(*row) for row in await self._session.execute(_PAGES[state], asked)]


def _receivers(message: Message) -> dict[str, str | int]:
    return {"seq": message.seq, "conversation_id": message.conversation_id, "sender": message.sender}

"""The SQL that counts for operators: rows, and a sample of unread messages in two ways."""

from collections.abc import Sequence

from tlim_runtime.transactions import Connection

from message_store.statements import NamedStatement

# An exact count of a large table reads all of it. Autovacuum keeps an estimate within a few percent.
_MAILBOXES = NamedStatement("""
    SELECT CASE WHEN reltuples >= :exact THEN reltuples::bigint
                ELSE (SELECT count(*) FROM (SELECT FROM mailboxes LIMIT :at_most) AS counted) END
    FROM pg_class WHERE oid = 'mailboxes'::regclass""")

_EXACT, _AT_MOST = 10_000, 100_000

# A random member, and not the sender: many people of a group only read.
_SOME_PEOPLE = NamedStatement("""
    SELECT DISTINCT user_id FROM (
        SELECT conversation_id FROM messages
        WHERE seq >= (SELECT (random() * coalesce(max(seq), 0))::bigint FROM messages)
        ORDER BY seq LIMIT :people) AS chosen
    CROSS JOIN LATERAL (
        SELECT user_id FROM members WHERE members.conversation_id = chosen.conversation_id
        ORDER BY random() LIMIT 1) AS member""")

# The plain way: each message of the conversation on its own, without the list's spans. It looks at as many of the
# newest messages as the list does: older ones are unread, but the list does not count them.
_UNREAD = NamedStatement("""
    SELECT count(*) FROM (
        SELECT FROM (
            SELECT sender, recalled_at FROM messages
            WHERE conversation_id = :conversation_id AND is_chat AND seq > :read_seq
                AND EXISTS (SELECT FROM members
                            WHERE members.conversation_id = messages.conversation_id AND members.user_id = :user_id
                                AND messages.seq BETWEEN joined_seq AND coalesce(left_seq, 9223372036854775807))
            ORDER BY seq DESC LIMIT :look_at) AS looked_at
        WHERE sender <> :user_id AND recalled_at IS NULL
        LIMIT :at_most) AS counted""")


class CensusRepository:
    """Counts, on one database connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def mailboxes(self) -> int:
        """Return how many people have a mailbox; an estimate when there are many."""
        return int((await _MAILBOXES.row(self._connection, exact=_EXACT, at_most=_AT_MOST))[0])

    async def some_people(self, people: int) -> Sequence[str]:
        """Return up to so many people of the conversations at a random place of the log."""
        return [row["user_id"] for row in await _SOME_PEOPLE.rows(self._connection, people=people)]

    async def unread(self, user_id: str, conversation_id: str, read_seq: int, *, look_at: int, at_most: int) -> int:
        """Count a person's unread messages behind their read cursor, among the newest `look_at` of a conversation.

        Counting stops at `at_most`.
        """
        row = await _UNREAD.row(
            self._connection,
            user_id=user_id,
            conversation_id=conversation_id,
            read_seq=read_seq,
            look_at=look_at,
            at_most=at_most,
        )
        return int(row[0])

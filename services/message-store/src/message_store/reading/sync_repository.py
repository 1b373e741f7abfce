"""The SQL of sync: all rows that concern a user, in the order of the log."""

from tlim_runtime.transactions import Connection

from message_store.mailbox.repository import Mailboxes
from message_store.reading.slice_repository import Slice, go_along_the_indexes, read_slice, slice_statement

# A row concerns the user in one of four ways, and each way is a range of an index: it was sent to the user, by the user
# (from another device), to several people with the user among them, or to a group while the user was in it. The first
# three are `named`. What a mailbox holds is the same without the rows by the user.
#
# Groups: for each group of the user we read its first few rows after the cursor (`heads`). That takes microseconds. A
# column that says which groups have news would be one more row to write with every receipt.
# Then groups with more rows are read further, up to `horizon`.
# `reach` is the last seq that the page can contain, as far as `named` tells. It keeps us from probing every partition
# for every group. `horizon` is the same limit when `heads` are known too, and is closer. It keeps us from reading a
# full page per group for a user who was away for long.
_TO_USER = """
            (SELECT seq FROM messages
             WHERE recipient IS NOT NULL
                AND seq > :after AND (recipient, seq) > (:user_id, :after) AND recipient <= :user_id
             ORDER BY recipient, seq LIMIT :one_more)"""

_BY_USER = """
            (SELECT seq FROM messages
             WHERE seq > :after AND (sender, seq) > (:user_id, :after) AND sender <= :user_id
             ORDER BY sender, seq LIMIT :one_more)"""

_LISTING_USER = """
            (SELECT seq FROM addressees WHERE user_id = :user_id AND seq > :after ORDER BY seq LIMIT :one_more)"""

_MERGED = """
    SELECT seq FROM (
        WITH named AS MATERIALIZED ({named}),
        reach AS MATERIALIZED (
            SELECT coalesce(max(seq), 9223372036854775807) AS seq
            FROM (SELECT seq FROM named ORDER BY seq OFFSET :one_more - 1 LIMIT 1) AS last),
        heads AS MATERIALIZED (
            SELECT members.conversation_id, coalesce(left_seq, 9223372036854775807) AS until, head.seqs
            FROM members CROSS JOIN LATERAL (
                SELECT array_agg(first.seq ORDER BY first.seq) AS seqs FROM (
                    SELECT seq FROM messages
                    WHERE audience = 2 AND seq > :after AND seq <= (SELECT seq FROM reach)
                        AND (conversation_id, seq) > (members.conversation_id, greatest(joined_seq - 1, :after))
                        AND (conversation_id, seq) <= (members.conversation_id,
                            least(coalesce(left_seq, 9223372036854775807), (SELECT seq FROM reach)))
                    ORDER BY conversation_id, seq LIMIT :heads) AS first) AS head
            WHERE user_id = :user_id AND NOT starts_with(members.conversation_id, 'u:')
                AND (left_seq IS NULL OR left_seq > :after)),
        near AS MATERIALIZED (SELECT seq FROM named UNION SELECT unnest(seqs) FROM heads),
        horizon AS MATERIALIZED (
            SELECT coalesce(max(seq), 9223372036854775807) AS seq
            FROM (SELECT seq FROM near ORDER BY seq OFFSET :one_more - 1 LIMIT 1) AS last)
        SELECT seq FROM near
        UNION
        SELECT further.seq
        FROM heads CROSS JOIN LATERAL (
            SELECT seq FROM messages
            WHERE audience = 2 AND seq > :after AND seq <= (SELECT seq FROM horizon)
                AND (conversation_id, seq) > (heads.conversation_id, heads.seqs[CAST(:heads AS int)])
                AND (conversation_id, seq) <= (heads.conversation_id, least(until, (SELECT seq FROM horizon)))
            ORDER BY conversation_id, seq LIMIT :one_more) AS further
        WHERE heads.seqs[CAST(:heads AS int)] < (SELECT seq FROM horizon)) AS concerning
    ORDER BY seq LIMIT :one_more"""


def _merged(*named: str) -> str:
    return _MERGED.format(named="\n            UNION".join(named))


ADDRESSED = _merged(_TO_USER, _LISTING_USER)
"""Selects the first `:one_more` seqs after `:after` of rows that were addressed to the user. The user's own rows in
groups are among them, because the index does not tell them apart."""

HEADS = 4
"""`:heads` of a page of usual size. For a page of 1,000 rows it is about the root of that: then a user's many groups
together have the rows of a page among their heads, and a few groups may well be read as far as the page can reach."""

_AFTER = slice_statement(_merged(_TO_USER, _BY_USER, _LISTING_USER))


class SyncReader:
    """The rows that concern a user, on the database connection of a request."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def concerning(self, user_id: str, after: int, limit: int) -> Slice:
        """Return up to `limit` rows of any kind that concern the user after seq `after`, oldest first.

        Seqs become visible in their order. So no row appears later before one that was already returned.
        """
        # PostgreSQL expects few rows between the cursor and `reach`, and would sort all of them for each group.
        await go_along_the_indexes(self._connection, sort=False)
        return await read_slice(self._connection, _AFTER, limit, user_id=user_id, after=after, heads=HEADS)

    async def synced(self, user_id: str, after: int, following: int) -> None:
        """Tell the user's mailbox of a page between two cursors; writes only if that is news."""
        await Mailboxes(self._connection).synced(user_id, after, following)

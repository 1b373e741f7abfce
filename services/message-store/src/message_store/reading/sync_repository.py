"""The SQL of sync: whatever concerns somebody, in the order of the log."""

from sqlalchemy.ext.asyncio import AsyncSession

from message_store.reading.slice_repository import Slice, go_along_the_indexes, read_slice, slice_statement

# Four ways in which a row concerns somebody, each a range of an index: it was sent to him, by him (from another device
# of his), to several of whom he is one, or to the members of a group while he was in it.
#
# Every group of his is probed for its first few rows after the cursor: a probe takes microseconds, and a column that
# says where to look would be one more row to write with every receipt. How far the page can reach at most is known from
# the first three ways, its `reach`, and better once these heads are, its `horizon`; groups with more are read on up to
# there. Without the one, all partitions of the log would be probed for each of his groups, without the other, who has
# been away for long would have a whole page read for each of them.
_CANDIDATES = """
    SELECT seq FROM (
        WITH named AS MATERIALIZED (
            (SELECT seq FROM messages
             WHERE recipient IS NOT NULL
                AND seq > :after AND (recipient, seq) > (:user_id, :after) AND recipient <= :user_id
             ORDER BY recipient, seq LIMIT :one_more)
            UNION
            (SELECT seq FROM messages
             WHERE seq > :after AND (sender, seq) > (:user_id, :after) AND sender <= :user_id
             ORDER BY sender, seq LIMIT :one_more)
            UNION
            (SELECT seq FROM addressees WHERE user_id = :user_id AND seq > :after ORDER BY seq LIMIT :one_more)),
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
                    ORDER BY conversation_id, seq LIMIT 4) AS first) AS head
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
                AND (conversation_id, seq) > (heads.conversation_id, heads.seqs[4])
                AND (conversation_id, seq) <= (heads.conversation_id, least(until, (SELECT seq FROM horizon)))
            ORDER BY conversation_id, seq LIMIT :one_more) AS further
        WHERE heads.seqs[4] < (SELECT seq FROM horizon)) AS concerning
    ORDER BY seq LIMIT :one_more"""

_AFTER = slice_statement(_CANDIDATES)


class SyncReader:
    """What concerns somebody, on the session of a request."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def concerning(self, user_id: str, after: int, limit: int) -> Slice:
        """Return up to `limit` rows of any kind that concern the user after seq `after`, oldest first.

        Seqs become visible in their order, so that a row behind one that was returned is never a late one.
        """
        # Between a cursor and a reach PostgreSQL expects few rows of the whole log, and would sort them for each group.
        await go_along_the_indexes(self._session, sort=False)
        return await read_slice(self._session, _AFTER, limit, {"user_id": user_id, "after": after})

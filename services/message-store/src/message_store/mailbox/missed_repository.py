"""The SQL of what a person has missed: a page of it, and a look back from the end of the log.

Both look at ranges of indexes that may hold more than what is sent: the person's own rows in groups, recalled messages,
and receipts if there are many. So both limit what is looked at, and not only what is found.
"""

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

from tlim_protocol.registry import REGISTRY, Effect

from message_store.mailbox.repository import Mailboxes
from message_store.reading.slice_repository import MAX_BYTES, go_along_the_indexes
from message_store.reading.sync_repository import ADDRESSED, HEADS
from message_store.statements import NamedStatement
from message_store.values import COLUMNS, ReadRow

_RECEIPTS = [str(name) for name, kind in REGISTRY.items() if kind.effect is Effect.RECEIPT]

_NOT_RECEIPT = "msg_type <> ALL (CAST(:receipt_types AS text[]))"

_IS_SENT = "(sender <> :user_id OR recipient = :user_id) AND NOT (is_chat AND recalled_at IS NOT NULL)"
"""A message to oneself is delivered, as it is to everybody else."""

# From a seq to its row, whatever PostgreSQL believes: OFFSET 0 keeps it from reading the whole log in the order of seq.
_ROW = "CROSS JOIN LATERAL (SELECT * FROM messages WHERE messages.seq = looked_up.seq OFFSET 0) AS message"

# The bytes of a body are only looked at for rows that may be on the page.
_PAGE = NamedStatement(f"""
    WITH candidates AS MATERIALIZED ({ADDRESSED}),
    looked AS (SELECT count(*) AS looked_at, max(seq) AS frontier FROM candidates),
    sent AS (
        SELECT message.* FROM candidates AS looked_up {_ROW}
        WHERE {_IS_SENT} AND (:receipts OR {_NOT_RECEIPT})
        ORDER BY message.seq LIMIT :max_rows + 1),
    sized AS (
        SELECT sent.*, count(*) OVER () AS found,
               sum(octet_length(body::text)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING)
                   - octet_length(body::text) AS bytes_before
        FROM sent),
    page AS (SELECT * FROM sized WHERE bytes_before < :max_bytes ORDER BY seq LIMIT :max_rows)
    SELECT {COLUMNS}, found, looked_at, frontier FROM looked LEFT JOIN page ON true
    ORDER BY seq""")  # noqa: S608 - no input

_BACK = NamedStatement(f"""
    WITH named AS (
        (SELECT seq FROM messages
         WHERE recipient IS NOT NULL AND seq > :low AND seq <= :high
            AND (recipient, seq) > (:user_id, :low) AND (recipient, seq) <= (:user_id, :high)
         ORDER BY recipient DESC, seq DESC LIMIT :most)
        UNION
        (SELECT seq FROM addressees WHERE user_id = :user_id AND seq > :low AND seq <= :high
         ORDER BY seq DESC LIMIT :most)
        UNION
        (SELECT said.seq
         FROM members CROSS JOIN LATERAL (
             SELECT seq FROM messages
             WHERE audience = 2 AND seq > :low AND seq <= :high
                AND (conversation_id, seq) > (members.conversation_id, greatest(joined_seq - 1, :low))
                AND (conversation_id, seq) <= (members.conversation_id, least(coalesce(left_seq, :high), :high))
             ORDER BY conversation_id DESC, seq DESC LIMIT :most) AS said
         WHERE user_id = :user_id AND NOT starts_with(members.conversation_id, 'u:')
            AND (left_seq IS NULL OR left_seq > :low) AND joined_seq <= :high)),
    looked AS MATERIALIZED (SELECT seq FROM named ORDER BY seq DESC LIMIT :most)
    SELECT (SELECT count(*) FROM looked) AS looked_at, (SELECT min(seq) FROM looked) AS oldest,
           array_agg(message.seq ORDER BY message.seq DESC) FILTER (WHERE {_NOT_RECEIPT}) AS others,
           array_agg(message.seq ORDER BY message.seq DESC) FILTER (WHERE NOT {_NOT_RECEIPT}) AS receipts
    FROM looked AS looked_up {_ROW}
    WHERE {_IS_SENT}""")  # noqa: S608 - no input

_WIDTH = len(ReadRow._fields)
"""The columns of a row of the log; behind them stand the counts of the page."""


class MissedPage(NamedTuple):
    """What is sent, oldest first; `next` is where the next page begins.

    `more`: there may be more. A page with `more` may be empty.
    """

    messages: Sequence[ReadRow]
    next: int
    more: bool


class Block(NamedTuple):
    """What lies in a part of the log, newest first; everything in it above `low` was looked at."""

    others: Sequence[int]
    receipts: Sequence[int]
    looked_at: int
    low: int


class MissedTables(Mailboxes):
    """What was addressed to a person, on a database connection with one snapshot."""

    async def page(self, user_id: str, after: int, limit: int, *, look_at: int, receipts: bool) -> MissedPage:
        """Return up to `limit` rows after seq `after`, among the first `look_at` that were addressed to the person."""
        await go_along_the_indexes(self._connection, sort=False)
        rows = await _PAGE.rows(
            self._connection,
            user_id=user_id,
            after=after,
            one_more=look_at,
            max_rows=limit,
            max_bytes=MAX_BYTES,
            receipts=receipts,
            receipt_types=_RECEIPTS,
            heads=max(HEADS, isqrt(look_at)),
        )
        messages = [ReadRow(*row[:_WIDTH]) for row in rows if row["seq"] is not None]
        found, looked_at, frontier = rows[0][_WIDTH:]
        if messages and found > len(messages):
            return MissedPage(messages, messages[-1].seq, more=True)
        return MissedPage(messages, after if frontier is None else frontier, more=looked_at == look_at)

    async def back(self, user_id: str, low: int, high: int, most: int) -> Block:
        """Look back at up to `most` rows that were addressed to the person, from seq `high` down to behind `low`."""
        await go_along_the_indexes(self._connection, sort=False)
        looked_at, oldest, others, receipts = await _BACK.row(
            self._connection, user_id=user_id, low=low, high=high, most=most, receipt_types=_RECEIPTS
        )
        return Block(others or (), receipts or (), looked_at, oldest - 1 if looked_at == most else low)

"""Slices of the log: rows in their order, limited by number and by bytes; the frame of every paged statement.

The cost of a slice must not depend on other rows of the log, nor on PostgreSQL's statistics. So every statement ties
itself to one index: its bounds and its order are both pairs, `(sender, seq) > (:user_id, :after) ... ORDER BY sender,
seq`. With `sender = :user_id ... ORDER BY seq` PostgreSQL could also walk along the primary key, through the messages
of all other users. It does so when it believes that a sender or a conversation has a large share of the log.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tlim_runtime.transactions import Connection

from message_store.statements import NamedStatement
from message_store.values import COLUMNS, ReadRow

MAX_BYTES = 1024 * 1024
"""The most that the bodies of one page may hold together. A phone can take that, and a page of common messages has a
tenth of it."""

# First the seqs are chosen, then their rows are looked up. A row is on the page if the rows before it have not filled
# the page. So a page is never empty only because its first row is large.
_FRAME = """
    WITH candidates AS MATERIALIZED ({candidates}),
    sized AS (
        SELECT {columns}, count(*) OVER () AS found,
               sum(octet_length(body::text)) OVER (ORDER BY seq {order} ROWS UNBOUNDED PRECEDING)
                   - octet_length(body::text) AS bytes_before
        FROM candidates JOIN messages USING (seq))
    SELECT {columns}, found FROM sized WHERE bytes_before < :max_bytes ORDER BY seq {order} LIMIT :max_rows"""


# PostgreSQL can only guess how many rows lie between such bounds, and it guesses few. Then it fetches and sorts all of
# them, which may be years of a conversation. Without bitmap scans it goes along the index, and stops at a full page.
_ALONG_THE_INDEX = NamedStatement(
    "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', :sort, true)"
)


class Slice(NamedTuple):
    """Rows in the order asked for, and whether more rows follow."""

    messages: Sequence[ReadRow]
    more: bool


def slice_statement(candidates: str, *, newest_first: bool = False) -> NamedStatement:
    """Return the statement of a page; `candidates` selects the first `:one_more` seqs that match."""
    return NamedStatement(
        _FRAME.format(columns=COLUMNS, candidates=candidates, order="DESC" if newest_first else "ASC")
    )


async def go_along_the_indexes(connection: Connection, *, sort: bool = True) -> None:
    """Let the statements of this transaction read ranges of indexes in their order, and stop when they have enough.

    Without `sort` they also avoid to sort what an index gives in order.
    """
    await _ALONG_THE_INDEX.rows(connection, sort="on" if sort else "off")


async def read_slice(
    connection: Connection, statement: NamedStatement, limit: int, **parameters: int | str | list[int]
) -> Slice:
    """Run a statement of `slice_statement` for at most `limit` rows."""
    rows = await statement.rows(connection, max_bytes=MAX_BYTES, max_rows=limit, one_more=limit + 1, **parameters)
    return Slice([ReadRow(*row[:-1]) for row in rows], more=bool(rows) and rows[0]["found"] > len(rows))

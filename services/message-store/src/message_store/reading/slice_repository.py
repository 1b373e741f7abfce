"""Slices of the log: rows in their order, bounded by number and by bytes; the frame of every paged statement.

What a slice costs must not depend on what else lies in the log, nor on what PostgreSQL knows of it. So every statement
names the index that it is for by its bounds and its order, both of them pairs: `(sender, seq) > (:user_id, :after) ...
ORDER BY sender, seq`. With `sender = :user_id ... ORDER BY seq` the primary key would do as well, and lead through the
messages of everybody else: the planner takes it when it believes that a sender, or a conversation, has a large share.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Executable, bindparam, inspect, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from message_store.models import Message

MAX_BYTES = 1024 * 1024
"""What the bodies of one page hold together: a page of common messages is a tenth of it, and a phone can take it."""

# Rows are looked up by seq only once it is settled which. A row has its place when what comes before it has not filled
# the page: a page is never empty because its first row is large.
_FRAME = """
    WITH candidates AS MATERIALIZED ({candidates}),
    sized AS (
        SELECT messages.*, count(*) OVER () AS found,
               sum(octet_length(body::text)) OVER (ORDER BY seq {order} ROWS UNBOUNDED PRECEDING)
                   - octet_length(body::text) AS bytes_before
        FROM candidates JOIN messages USING (seq))
    SELECT * FROM sized WHERE bytes_before < :max_bytes ORDER BY seq {order} LIMIT :max_rows"""


# How many rows lie between such bounds PostgreSQL can only guess, and it guesses few: then it likes to fetch and sort
# all of them, years of a conversation. Without bitmaps it goes along the index and stops when the page is full.
_ALONG_THE_INDEX = text("SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', :sort, true)")


class Slice(NamedTuple):
    """Rows in the order asked for, and whether there are more behind them."""

    messages: Sequence[Message]
    more: bool


def slice_statement(candidates: str, *, newest_first: bool = False) -> Executable:
    """Return the statement of a page; `candidates` selects up to `:one_more` seqs, the first of all there are."""
    found = literal_column("found", BigInteger)
    frame = text(_FRAME.format(candidates=candidates, order="DESC" if newest_first else "ASC"))
    typed = frame.bindparams(bindparam("max_bytes", MAX_BYTES)).columns(*inspect(Message).columns, found)
    return select(Message, found).from_statement(typed)


async def go_along_the_indexes(session: AsyncSession, *, sort: bool = True) -> None:
    """Let the statements of this transaction read ranges of indexes in their order, and stop where they may.

    Without `sort` they sort nothing that an index has in order.
    """
    await session.execute(_ALONG_THE_INDEX, {"sort": "on" if sort else "off"})


async def read_slice(
    session: AsyncSession, statement: Executable, limit: int, parameters: Mapping[str, int | str | list[int]]
) -> Slice:
    """Run a statement of `slice_statement` for at most `limit` rows."""
    bounds = {"max_rows": limit, "one_more": limit + 1}
    rows = (await session.execute(statement, {**parameters, **bounds})).all()
    return Slice([row[0] for row in rows], more=bool(rows) and rows[0][1] > len(rows))

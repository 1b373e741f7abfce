"""Slices of the log: rows in their order, bounded by number and by bytes; the frame of every paged statement."""

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


async def read_slice(
    session: AsyncSession, statement: Executable, limit: int, parameters: Mapping[str, int | str | list[int]]
) -> Slice:
    """Run a statement of `slice_statement` for at most `limit` rows."""
    bounds = {"max_rows": limit, "one_more": limit + 1}
    rows = (await session.execute(statement, {**parameters, **bounds})).all()
    return Slice([row[0] for row in rows], more=bool(rows) and rows[0][1] > len(rows))

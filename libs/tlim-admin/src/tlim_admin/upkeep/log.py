"""All SQL of upkeep: how far message-store has indexed its log, and beginning the index anew."""

from typing import NamedTuple

from tlim_runtime.transactions import Connection, begun


class IndexProgress(NamedTuple):
    """The newest seq of the log, and up to which seq it is indexed for search."""

    newest: int
    indexed: int


async def progress(connection: Connection) -> IndexProgress:
    """Return how far message-store is."""
    statement = "SELECT coalesce((SELECT max(seq) FROM messages), 0), indexed_seq FROM publication"
    row = await connection.fetchrow(statement)
    return IndexProgress(*row) if row is not None else IndexProgress(0, 0)


async def empty_index(connection: Connection) -> None:
    """Remove everything from the index of search. A store begins to fill it again within a second."""
    async with begun(connection):
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute("TRUNCATE search_documents")  # first: whoever waits may not hold the row
        await connection.execute("UPDATE publication SET indexed_seq = 0")

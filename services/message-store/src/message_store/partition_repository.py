"""The SQL that adds partitions to the log before they are needed, by ranges of seq."""

from tlim_runtime.database import Database


class Partitions:
    """The partitions of the log; added by the function `add_message_partitions`, which has the owner's rights."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest_seq(self) -> int:
        """Return the newest seq that was given out, committed or not; raises DatabaseUnavailable."""
        async with self._database.hot_transaction() as connection:
            return int(await connection.fetchval("SELECT last_value FROM message_seq"))

    async def add(self, span: int, up_to: int) -> int:
        """Add partitions of `span` seqs until `up_to` lies in one; return the first seq that has no room.

        Takes no lock that readers or writers wait for. Raises DatabaseUnavailable.
        """
        async with self._database.hot_transaction() as connection:
            return int(await connection.fetchval("SELECT add_message_partitions($1, $2)", span, up_to))

"""The locks of the log, which are more than one repository's: who has which part, who may draw a seq, who may publish.

A store takes the last two in this order. Whoever may wait for the lock of publication holds no row of the table
`publication`, because whoever has that lock writes there.
"""

from tlim_runtime.transactions import Connection

from message_store.shares import PARTS, Division

# Advisory locks are plain numbers; these begin with "tlim".
_STORE_LOCK = 0x746C_696D_0001  # all stores share it; a store of the release before, which shares nothing, has it alone
SEQ_LOCK = 0x746C_696D_0002  # until the commit
PUBLICATION_LOCK = 0x746C_696D_0005  # from before the commit until all of it is published
_PART_LOCKS = 0x746C_696D_0100  # and the number of a part (shares.py)

# A bigint is in two columns. Only stores of our own database count.
_HELD = """
    SELECT pg_backend_pid(), pid, classid::bigint << 32 | objid::bigint
    FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE datname = current_database() AND locktype = 'advisory' AND objsubid = 1 AND granted"""


async def try_to_join(connection: Connection) -> bool:
    """Become one of the stores, unless one of the release before works; it lasts as long as this connection."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock_shared($1)", _STORE_LOCK))


async def division_of(connection: Connection) -> Division:
    """Return which stores there are, and which part each of them has."""
    held = await connection.fetch(_HELD)
    stores = {pid for _, pid, lock in held if lock == _STORE_LOCK}
    owners = {lock - _PART_LOCKS: pid for _, pid, lock in held if lock - _PART_LOCKS in PARTS}
    return Division(held[0][0], stores, owners)


async def try_to_take(connection: Connection, part: int) -> bool:
    """Take a part unless another store has it; it lasts as long as this connection."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _PART_LOCKS + part))


async def give_back(connection: Connection, part: int) -> None:
    """Let another store take a part."""
    await connection.execute("SELECT pg_advisory_unlock($1)", _PART_LOCKS + part)

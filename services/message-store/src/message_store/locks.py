"""The locks of the log, which are more than one repository's: who leads, who may draw a seq, and who may publish.

A store takes them in this order. Whoever may wait for the lock of publication holds no row of the table `publication`,
because whoever has that lock writes there.
"""

from tlim_runtime.transactions import Connection

_LEADER_LOCK = 0x746C_696D_0001  # advisory locks are plain numbers; these begin with "tlim"
SEQ_LOCK = 0x746C_696D_0002  # until the commit
PUBLICATION_LOCK = 0x746C_696D_0005  # from before the commit until all of it is published


async def try_to_lead(connection: Connection) -> bool:
    """Take the leader's lock unless another session holds it; it lasts as long as this connection."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER_LOCK))

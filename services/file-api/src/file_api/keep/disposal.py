"""The removal of objects that belong to nobody: discarded objects, and objects of expired uploads."""

from datetime import UTC, datetime, timedelta

from tlim_runtime.background import Tasks
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.files import object_key
from file_api.keep.storage import Storage
from file_api.repository import Transaction

logger = get_logger(__name__)

SETTLED = timedelta(minutes=10)
"""After this time S3 has either carried out or dropped a request that we no longer wait for."""

_LEASE = timedelta(minutes=5)
"""The time that a process has to remove an object. After a failure the object waits until then, and others go first:
S3 may refuse this object for ever."""

AT_ONCE = 4
"""Removals at a time that nobody waits for. Each takes a connection of the database's pool of ten, for moments."""

MOST_SWEPT = 100
"""Objects that a call removes at most, in some seconds. So it is soon seen that S3 works again."""

_BATCH = 500  # expired uploads in one transaction


class Disposal:
    """Removes from S3 what the database says belongs to nobody; several processes may do it at once.

    The object goes first, then its row. If a process is killed in between, another one removes the object again. No
    transaction is open meanwhile: S3 may take minutes, and PostgreSQL ends a transaction that is idle for one.
    """

    def __init__(self, transaction: Transaction, storage: Storage) -> None:
        self._transaction = transaction
        self._storage = storage
        self._tasks = Tasks()

    def remove_soon(self, key: str) -> None:
        """Begin to remove one discarded object, and do not wait. It is left to the next sweep while AT_ONCE go on."""
        if self._tasks.count < AT_ONCE:
            self._tasks.start(self.remove(key), "removal of an object")

    async def close(self) -> None:
        """End the removals that nobody waits for. What they have not removed is left to a sweep."""
        await self._tasks.close()

    async def remove(self, key: str) -> None:
        """Remove one discarded object now. It is left to the next sweep when S3 or the database is away."""
        try:
            async with self._transaction() as tables:
                leased = await tables.discarded.lease(key, datetime.now(UTC) + _LEASE)
            if leased:
                await self._remove(key)
        except Unavailable as error:
            logger.warning("an object is left to the sweeper", object_key=key, reason=str(error))

    async def sweep(self) -> int:
        """Remove some of what is due; returns how many objects, and 0 when there are no more.

        Raises Unavailable; what was removed stays removed.
        """
        await self._discard_expired()
        removed = 0
        while removed < MOST_SWEPT and await self._remove_next():
            removed += 1
        return removed

    async def _discard_expired(self) -> None:
        now = datetime.now(UTC)
        async with self._transaction() as tables:
            expired = await tables.uploads.end_expired(now, _BATCH)
            await tables.discarded.add([object_key(upload_id) for upload_id in expired], now)

    async def _remove_next(self) -> bool:
        now = datetime.now(UTC)
        async with self._transaction() as tables:
            key = await tables.discarded.lease_next(now, now + _LEASE)
        if key is None:
            return False
        await self._remove(key)
        logger.info("removed an object that belonged to nobody", object_key=key)
        return True

    async def _remove(self, key: str) -> None:
        await self._storage.discard(key)
        async with self._transaction() as tables:
            await tables.discarded.forget(key)

"""The removal of objects that belong to nobody: discarded ones, and those of uploads that have expired."""

from datetime import UTC, datetime, timedelta

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.files import object_key
from file_api.repository import Transaction
from file_api.storage import Storage, StorageUnavailable

logger = get_logger(__name__)

SETTLED = timedelta(minutes=10)
"""By then a request that we gave up has ended in S3, one way or the other."""

_AGAIN = timedelta(minutes=5)  # after a failure: the others come first, lest it is this object that S3 refuses
_BATCH = 500  # expired uploads in one transaction


class Disposal:
    """Removes from S3 what the database says belongs to nobody; several processes may do it at once.

    The object goes first, then its row: a process that is killed in between does it again.
    """

    def __init__(self, transaction: Transaction, storage: Storage) -> None:
        self._transaction = transaction
        self._storage = storage

    async def remove(self, key: str) -> None:
        """Remove one discarded object now, or leave it to the next sweep where S3 or the database is away."""
        try:
            async with self._transaction() as tables:
                if await tables.discarded.lock(key):
                    await self._storage.discard(key)
                    await tables.discarded.forget(key)
        except Unavailable as error:
            logger.warning("an object is left to the sweeper", object_key=key, reason=str(error))

    async def sweep(self) -> int:
        """Remove what is due; returns how many objects. Raises Unavailable; what was removed stays removed."""
        while await self._discard_expired():
            pass
        removed = 0
        while await self._remove_next():
            removed += 1
        return removed

    async def _discard_expired(self) -> bool:
        now = datetime.now(UTC)
        async with self._transaction() as tables:
            expired = await tables.uploads.end_expired(now, _BATCH)
            await tables.discarded.add([object_key(upload_id) for upload_id in expired], now)
        return len(expired) == _BATCH

    async def _remove_next(self) -> bool:
        failure, now = None, datetime.now(UTC)
        async with self._transaction() as tables:
            key = await tables.discarded.lock_next(now)
            if key is None:
                return False
            try:
                await self._storage.discard(key)
                await tables.discarded.forget(key)
            except StorageUnavailable as error:
                failure = error
                await tables.discarded.put_off(key, now + _AGAIN)
        if failure is not None:
            raise failure
        logger.info("removed an object that belonged to nobody", object_key=key)
        return True

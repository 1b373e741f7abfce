"""The rules of quarantine: new bytes can be downloaded once the virus scanner has found nothing in them.

Each blob is scanned once, for all files that have it. The database says what is to be scanned. So a killed process or
an outage of the scanner neither lets a file through nor forgets it.
"""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

from file_api.files import Blob, Scan
from file_api.keep.clamd import Clamd, ScanFailedError
from file_api.keep.disposal import Disposal
from file_api.keep.storage import ObjectMissing, Storage
from file_api.metrics import FileMetrics
from file_api.repository import Transaction

logger = get_logger(__name__)

SCAN_TIMEOUT = timedelta(minutes=2)
"""clamd takes a few seconds for 100 MiB, and gives up an archive after two minutes itself (MaxScanTime)."""

SOON = timedelta(seconds=10)
"""The pause after an outage of the scanner. The other blobs go first, in case this blob caused it."""

_LEASE = timedelta(minutes=5)  # the time of the process that scans, above SCAN_TIMEOUT; then another process tries
_AGAIN = timedelta(minutes=10)  # after clamd could not scan a file: the cause is seldom gone at once


class Quarantine:
    """Scans what waits; several processes share the work."""

    def __init__(
        self, transaction: Transaction, storage: Storage, disposal: Disposal, clamd: Clamd, metrics: FileMetrics
    ) -> None:
        self._transaction = transaction
        self._storage = storage
        self._disposal = disposal
        self._clamd = clamd
        self._metrics = metrics

    async def scan_next(self) -> bool:
        """Scan one blob that waits; False when there is none. Raises Unavailable; what was in hand waits again."""
        now = datetime.now(UTC)
        async with self._transaction() as tables:
            blob = await tables.scans.lease(now, now + _LEASE)
        if blob is None:
            return False
        try:
            async with aclosing(await self._storage.get(blob.object_key)) as data:
                finding = await self._clamd.scan(data)
        except ObjectMissing:  # deleted meanwhile; else its row stays in quarantine
            await self._put_back(blob, now + _AGAIN)
        except ScanFailedError as error:
            logger.warning("a file could not be scanned", blob_id=blob.blob_id, reason=str(error))
            await self._put_back(blob, now + _AGAIN)
        except Unavailable:
            await self._put_back(blob, now + SOON)
            raise
        else:
            await self._note(blob, finding)
        return True

    async def _put_back(self, blob: Blob, due: datetime) -> None:
        self._metrics.not_scanned()
        async with self._transaction() as tables:
            await tables.scans.put_back(blob.blob_id, due)

    async def _note(self, blob: Blob, finding: str | None) -> None:
        self._metrics.scanned(Scan.CLEAN if finding is None else Scan.INFECTED)
        condemned = None
        async with self._transaction() as tables:
            if finding is None:
                await tables.scans.note_clean(blob.blob_id)
            else:
                condemned = await tables.scans.note_infected(blob.blob_id, finding)
                if condemned is not None:
                    await tables.discarded.add(condemned.object_keys, datetime.now(UTC))
        if condemned is not None:
            logger.warning("a virus was found", finding=finding, sha256=blob.sha256, file_ids=condemned.file_ids)
            for key in condemned.object_keys:
                await self._disposal.remove(key)

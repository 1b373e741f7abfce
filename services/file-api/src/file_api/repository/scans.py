"""SQL about what the virus scanner says of blobs."""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from file_api.files import Blob, Scan
from file_api.models import BlobRow, FileRow
from file_api.repository.blobs import as_blob


class Condemned(NamedTuple):
    """What an infected blob leaves: the keys of its objects, to discard, and the ids of the files that had it."""

    object_keys: list[str]
    file_ids: list[str]


class ScanRepository:
    """Scans of blobs inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lease(self, now: datetime, until: datetime) -> Blob | None:
        """Return a blob that waits to be scanned, leased to the caller until then."""
        due = sa.select(BlobRow).where(col(BlobRow.scan_due_at) <= now)
        next_one = due.order_by(col(BlobRow.scan_due_at)).limit(1).with_for_update(skip_locked=True)
        row = (await self._session.scalars(next_one)).first()
        if row is None:
            return None
        row.scan_due_at = until
        return as_blob(row)

    async def put_back(self, blob_id: str, due: datetime) -> None:
        """Let a blob be scanned again from `due` on."""
        await self._session.execute(_waiting(blob_id).values(scan_due_at=due))

    async def note_clean(self, blob_id: str) -> None:
        """Release a blob from quarantine."""
        await self._session.execute(_waiting(blob_id).values(scan=Scan.CLEAN.value, scan_due_at=None))

    async def note_infected(self, blob_id: str, finding: str) -> Condemned | None:
        """Condemn a blob in quarantine; its row stays, so that the same bytes are refused. None when it is gone."""
        values = {"scan": Scan.INFECTED.value, "scan_due_at": None, "facts_due_at": None, "finding": finding}
        condemned = _waiting(blob_id).values(values).returning(BlobRow)
        row = (await self._session.scalars(condemned)).first()
        if row is None:
            return None
        files = sa.select(col(FileRow.file_id)).where(col(FileRow.blob_id) == blob_id)
        return Condemned(as_blob(row).object_keys, list((await self._session.scalars(files)).all()))

    async def release_all(self) -> int:
        """Release every blob in quarantine without a scan; returns how many."""
        waiting = sa.update(BlobRow).where(col(BlobRow.scan) == Scan.WAITING.value)
        released = waiting.values(scan=Scan.SKIPPED.value, scan_due_at=None).returning(col(BlobRow.blob_id))
        return len((await self._session.scalars(released)).all())


def _waiting(blob_id: str) -> sa.Update:
    return sa.update(BlobRow).where(col(BlobRow.blob_id) == blob_id, col(BlobRow.scan) == Scan.WAITING.value)

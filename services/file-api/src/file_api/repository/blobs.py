"""SQL about blobs: bytes that are kept once."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from file_api.files import Blob, Scan
from file_api.models import BlobRow, FileRow


class BlobRepository:
    """Blobs inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def keep(self, blob: Blob, now: datetime) -> Blob:
        """Return the blob with these bytes, for a file of this transaction: the one that is there, else this new one.

        Until the end of the transaction nobody removes it. Waits for a transaction that adds the same bytes. A blob
        that came while there was no scanner is scanned now, if the new one would be.
        """
        row = {"blob_id": blob.blob_id, "sha256": blob.sha256, "size": blob.size, "scan": blob.scan}
        scan_due_at = now if blob.scan == Scan.WAITING else None
        insertion = insert(BlobRow).values(**row, stored_at=now, facts_due_at=now, scan_due_at=scan_due_at)
        new = insertion.on_conflict_do_nothing(index_elements=["sha256"]).returning(col(BlobRow.blob_id))
        known = sa.select(BlobRow).where(col(BlobRow.sha256) == blob.sha256).with_for_update(read=True, key_share=True)
        while True:
            if (await self._session.scalars(new)).first() is not None:
                return blob
            there = (await self._session.scalars(known)).first()
            if there is not None:  # otherwise it was removed in between
                if there.scan == Scan.SKIPPED and blob.scan == Scan.WAITING:
                    there.scan, there.scan_due_at = blob.scan, now
                return as_blob(there)

    async def exists(self, blob_id: str) -> bool:
        """Tell whether there is a blob with this id."""
        query = sa.select(col(BlobRow.blob_id)).where(col(BlobRow.blob_id) == blob_id)
        return (await self._session.scalars(query)).first() is not None

    async def drop_unused(self, blob_id: str) -> list[str]:
        """Forget a blob to which no file points; returns the keys of its objects, to discard in this transaction.

        An infected one has none any more, and is not forgotten: its digest refuses the bytes when they come again.
        """
        row = await self._session.get(BlobRow, blob_id, with_for_update=True)
        # A statement of its own, after the lock: its snapshot has the files whose transactions the lock waited for.
        used = sa.select(col(FileRow.file_id)).where(col(FileRow.blob_id) == blob_id).limit(1)
        if row is None or row.scan == Scan.INFECTED or (await self._session.scalars(used)).first() is not None:
            return []
        await self._session.delete(row)
        return as_blob(row).object_keys


def as_blob(row: BlobRow) -> Blob:
    """Return a row as the rules know it."""
    return Blob(
        row.blob_id,
        row.sha256,
        row.size,
        row.scan,
        row.width,
        row.height,
        row.duration_ms,
        row.thumbnail_type,
        thumbnail_failed=row.thumbnail_failed,
        examined=row.facts_due_at is None,
    )

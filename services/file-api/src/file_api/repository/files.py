"""SQL about files."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from tlim_runtime.tables import any_of

from file_api.files import Scan, StoredFile
from file_api.models import BlobRow, FileRow, RemovedFileRow
from file_api.repository.blobs import as_blob


class FileRepository:
    """Files inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, file: StoredFile) -> None:
        """Add a file; its blob is there."""
        self._session.add(
            FileRow(
                file_id=file.file_id,
                owner_id=file.owner_id,
                blob_id=file.blob.blob_id,
                name=file.name,
                media_type=file.media_type,
                size=file.size,
                stored_at=file.stored_at,
            )
        )

    async def find(self, file_id: str) -> StoredFile | None:
        """Return a file."""
        query = sa.select(FileRow, BlobRow).join(BlobRow, col(BlobRow.blob_id) == col(FileRow.blob_id))
        found = (await self._session.execute(query.where(col(FileRow.file_id) == file_id))).first()
        return None if found is None else _stored(*found)

    async def remove(self, file_id: str, owner_id: str, now: datetime) -> str | None:
        """Remove a file of this owner; returns the id of its blob, None when the owner has no such file.

        A file that was sent leaves a note: messages still carry it.
        """
        gone = sa.delete(FileRow).where(col(FileRow.file_id) == file_id, col(FileRow.owner_id) == owner_id)
        found = await self._session.execute(gone.returning(col(FileRow.blob_id), col(FileRow.sent_at)))
        row = found.first()
        if row is None:
            return None
        if row.sent_at is not None:
            note = insert(RemovedFileRow).values(file_id=file_id, removed_at=now)
            await self._session.execute(note.on_conflict_do_nothing())
        return str(row.blob_id)

    async def note_sent(self, file_ids: Collection[str], now: datetime) -> dict[str, str]:
        """Note that these files are being sent; return the owner of each. Unknown and infected ones are left out."""
        there = col(FileRow.file_id) == any_of(file_ids)
        await self._session.execute(sa.update(FileRow).where(there, col(FileRow.sent_at).is_(None)).values(sent_at=now))
        query = sa.select(col(FileRow.file_id), col(FileRow.owner_id))
        query = query.join(BlobRow, col(BlobRow.blob_id) == col(FileRow.blob_id))
        sendable = query.where(there, col(BlobRow.scan) != Scan.INFECTED)
        return dict((await self._session.execute(sendable)).all())


def _stored(file: FileRow, blob: BlobRow) -> StoredFile:
    is_sent = file.sent_at is not None
    return StoredFile(file.file_id, file.owner_id, file.name, file.media_type, file.stored_at, as_blob(blob), is_sent)

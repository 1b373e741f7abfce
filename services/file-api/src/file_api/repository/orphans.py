"""SQL about what nobody needs: files never sent, blobs without files, objects without rows."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from tlim_runtime.tables import any_of

from file_api.files import Scan
from file_api.models import BlobRow, DiscardedRow, FileRow, UploadRow


class Unsent(NamedTuple):
    """A file that was removed because no message ever carried it."""

    file_id: str
    owner_id: str
    blob_id: str


class OrphanRepository:
    """Orphans inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def remove_unsent(self, before: datetime, limit: int) -> Sequence[Unsent]:
        """Remove up to `limit` files stored before that time and never sent. Files locked by others are skipped."""
        unsent = sa.select(col(FileRow.file_id)).where(col(FileRow.sent_at).is_(None), col(FileRow.stored_at) < before)
        oldest = unsent.order_by(col(FileRow.stored_at)).limit(limit).with_for_update(skip_locked=True)
        ids = (await self._session.scalars(oldest)).all()
        removed = sa.delete(FileRow).where(col(FileRow.file_id) == any_of(ids))
        rows = await self._session.execute(
            removed.returning(col(FileRow.file_id), col(FileRow.owner_id), col(FileRow.blob_id))
        )
        return [Unsent(*row) for row in rows]

    async def unused_blobs(self, after: str, limit: int) -> Sequence[str]:
        """Return up to `limit` ids, above `after`, of blobs without a file. Infected blobs stay, to be refused."""
        used = sa.exists().where(col(FileRow.blob_id) == col(BlobRow.blob_id))
        query = sa.select(col(BlobRow.blob_id)).where(~used, col(BlobRow.blob_id) > after, ~_INFECTED)
        return (await self._session.scalars(query.order_by(col(BlobRow.blob_id)).limit(limit))).all()

    async def with_bytes(self, ids: Collection[str]) -> set[str]:
        """Return those that are the ids of uploads, or of blobs that have an object."""
        return await self._all(
            sa.select(col(UploadRow.upload_id)).where(col(UploadRow.upload_id) == any_of(ids)),
            sa.select(col(BlobRow.blob_id)).where(col(BlobRow.blob_id) == any_of(ids), ~_INFECTED),
        )

    async def with_thumbnails(self, ids: Collection[str]) -> set[str]:
        """Return those that are the ids of blobs that have thumbnails."""
        blobs = sa.select(col(BlobRow.blob_id)).where(col(BlobRow.blob_id) == any_of(ids), ~_INFECTED)
        return await self._all(blobs.where(col(BlobRow.thumbnail_type).is_not(None)))

    async def discarded(self, keys: Collection[str]) -> set[str]:
        """Return those that are the keys of discarded objects."""
        query = sa.select(col(DiscardedRow.object_key))
        return await self._all(query.where(col(DiscardedRow.object_key) == any_of(keys)))

    async def blobs_between(self, after: str, upto: str | None, limit: int) -> Sequence[str]:
        """Return the first `limit` ids above `after`, up to `upto` (None: all), of blobs that must have an object."""
        query = sa.select(col(BlobRow.blob_id)).where(col(BlobRow.blob_id) > after, ~_INFECTED)
        query = query if upto is None else query.where(col(BlobRow.blob_id) <= upto)
        return (await self._session.scalars(query.order_by(col(BlobRow.blob_id)).limit(limit))).all()

    async def _all(self, *queries: sa.Select[str]) -> set[str]:
        # In one statement: a row that moves from one table to the other between two would be in neither.
        return set((await self._session.scalars(sa.union_all(*queries))).all())


_INFECTED = col(BlobRow.scan) == Scan.INFECTED.value

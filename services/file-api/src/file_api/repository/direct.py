"""SQL about direct uploads: their owners put the bytes into S3 themselves."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from file_api.files import DirectUpload
from file_api.models import UploadRow

_KIND = "direct"


class DirectRepository:
    """Direct uploads inside one transaction; they end as all uploads do, in UploadRepository."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def begin(self, upload: DirectUpload, now: datetime) -> None:
        """Note that an upload begins, before S3 is told: whatever happens to this process, its parts will be found."""
        row = UploadRow(
            upload_id=upload.upload_id,
            owner_id=upload.owner_id,
            kind=_KIND,
            began_at=now,
            expires_at=upload.expires_at,
            reserved_bytes=upload.size,
            name=upload.name,
            media_type=upload.media_type,
            part_bytes=upload.part_bytes,
            sha256=upload.sha256,
        )
        self._session.add(row)

    async def open(self, upload_id: str, s3_upload_id: str) -> bool:
        """Note S3's id of an upload; False when the upload is gone."""
        row = sa.update(UploadRow).where(col(UploadRow.upload_id) == upload_id)
        opened = row.values(s3_upload_id=s3_upload_id).returning(col(UploadRow.upload_id))
        return (await self._session.scalars(opened)).first() is not None

    async def find(self, upload_id: str, now: datetime) -> DirectUpload | None:
        """Return an upload that has not expired; without S3's id, if that could not be noted."""
        row = (await self._session.scalars(_open(now).where(col(UploadRow.upload_id) == upload_id))).first()
        return None if row is None else _upload(row)

    async def count(self, owner_id: str, now: datetime) -> int:
        """Return how many uploads of a user have not expired."""
        query = _open(now).where(col(UploadRow.owner_id) == owner_id).with_only_columns(sa.func.count())
        return (await self._session.scalars(query)).one()

    async def of(self, owner_id: str, after: str, limit: int, now: datetime) -> list[DirectUpload]:
        """Return a user's uploads that have not expired, by id, from behind the id `after`."""
        query = _open(now).where(col(UploadRow.owner_id) == owner_id, col(UploadRow.upload_id) > after)
        return [_upload(row) for row in await self._session.scalars(query.order_by(UploadRow.upload_id).limit(limit))]


def _open(now: datetime) -> sa.Select[UploadRow]:
    return sa.select(UploadRow).where(col(UploadRow.kind) == _KIND, col(UploadRow.expires_at) > now)


def _upload(row: UploadRow) -> DirectUpload:
    return DirectUpload(
        row.upload_id,
        row.owner_id,
        row.reserved_bytes,
        row.name or "",
        row.media_type,
        row.sha256,
        row.part_bytes or row.reserved_bytes,
        row.s3_upload_id or "",
        row.expires_at,
    )

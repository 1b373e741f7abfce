"""SQL about uploads that have begun."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from tlim_runtime.tables import any_of

from file_api.files import NewUpload
from file_api.models import UploadRow


class UploadRepository:
    """Uploads inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def begin(self, upload: NewUpload) -> None:
        """Note that an upload begins: from now on its bytes will be found, whatever happens to this process."""
        self._session.add(UploadRow(**upload._asdict()))

    async def end(self, upload_id: str, now: datetime) -> int | None:
        """Forget an upload. The caller says in the same transaction what becomes of its object.

        Returns how many bytes are reserved for it, 0 once it has expired; None when there is no such upload.
        """
        gone = sa.delete(UploadRow).where(col(UploadRow.upload_id) == upload_id)
        reserved = sa.case((col(UploadRow.expires_at) > now, col(UploadRow.reserved_bytes)), else_=0)
        return (await self._session.scalars(gone.returning(reserved))).first()

    async def end_expired(self, now: datetime, limit: int) -> Sequence[str]:
        """Forget up to `limit` uploads that expired before `now`. Uploads that somebody is ending are skipped."""
        expired = sa.select(col(UploadRow.upload_id)).where(col(UploadRow.expires_at) < now)
        oldest = expired.order_by(col(UploadRow.expires_at)).limit(limit).with_for_update(skip_locked=True)
        # As an array: a plan may run a sub-select with SKIP LOCKED more than once, and then end more than `limit`.
        ids = (await self._session.scalars(oldest)).all()
        if ids:
            await self._session.execute(sa.delete(UploadRow).where(col(UploadRow.upload_id) == any_of(ids)))
        return ids

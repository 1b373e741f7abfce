"""SQL about how much a user has."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from file_api.files import Scan, Usage
from file_api.models import BlobRow, FileRow, UploadRow


class UsageRepository:
    """What users' files and uploads add up to, inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock(self, owner_id: str) -> None:
        """Keep everybody else who takes this lock from adding to what the user has, until the transaction ends."""
        key = sa.func.hashtextextended(f"quota:{owner_id}", 0)
        await self._session.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))

    async def of(self, owner_id: str, now: datetime) -> Usage:
        """Add up what a user has: two index-only scans. Infected files have no bytes any more."""
        infected = sa.select(col(BlobRow.blob_id)).where(col(BlobRow.scan) == Scan.INFECTED.value)
        files = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(col(FileRow.size)), 0)).where(
            col(FileRow.owner_id) == owner_id, col(FileRow.blob_id).not_in(infected)
        )
        running = sa.select(sa.func.coalesce(sa.func.sum(col(UploadRow.reserved_bytes)), 0)).where(
            col(UploadRow.owner_id) == owner_id, col(UploadRow.expires_at) > now
        )
        count, size = (await self._session.execute(files)).one()
        return Usage(count, int(size), int((await self._session.execute(running)).scalar_one()))

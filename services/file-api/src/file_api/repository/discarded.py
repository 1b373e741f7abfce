"""SQL about objects that belong to nobody."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from file_api.models import DiscardedRow


class DiscardedRepository:
    """Discarded objects inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, object_keys: Collection[str], not_before: datetime) -> None:
        """Note that objects, which may or may not exist, are to be removed from S3 at `not_before` or later."""
        if object_keys:
            rows = [{"object_key": key, "not_before": not_before} for key in sorted(object_keys)]
            await self._session.execute(insert(DiscardedRow).on_conflict_do_nothing(), rows)

    async def lease(self, object_key: str, until: datetime) -> bool:
        """Lease an object to the caller until then; False when it is not discarded, or no longer."""
        row = sa.select(DiscardedRow).where(col(DiscardedRow.object_key) == object_key)
        return await self._lease(row, until) is not None

    async def lease_next(self, now: datetime, until: datetime) -> str | None:
        """Return the object that is due longest, leased to the caller until then."""
        due = sa.select(DiscardedRow).where(col(DiscardedRow.not_before) <= now)
        return await self._lease(due.order_by(col(DiscardedRow.not_before)).limit(1), until)

    async def _lease(self, query: sa.Select[DiscardedRow], until: datetime) -> str | None:
        row = (await self._session.scalars(query.with_for_update(skip_locked=True))).first()
        if row is None:
            return None
        row.not_before = until
        return row.object_key

    async def forget(self, object_key: str) -> None:
        """Forget an object that is gone."""
        await self._session.execute(sa.delete(DiscardedRow).where(col(DiscardedRow.object_key) == object_key))

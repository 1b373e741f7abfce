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

    async def lock(self, object_key: str) -> bool:
        """Keep everybody else from removing this object; False when somebody does already, or has."""
        query = sa.select(col(DiscardedRow.object_key)).where(col(DiscardedRow.object_key) == object_key)
        return (await self._session.scalars(query.with_for_update(skip_locked=True))).first() is not None

    async def lock_next(self, now: datetime) -> str | None:
        """Lock an object that is due and that nobody else removes."""
        query = sa.select(col(DiscardedRow.object_key)).where(col(DiscardedRow.not_before) <= now)
        oldest = query.order_by(col(DiscardedRow.not_before)).limit(1).with_for_update(skip_locked=True)
        return (await self._session.scalars(oldest)).first()

    async def put_off(self, object_key: str, not_before: datetime) -> None:
        """Leave an object alone until then."""
        row = sa.update(DiscardedRow).where(col(DiscardedRow.object_key) == object_key)
        await self._session.execute(row.values(not_before=not_before))

    async def forget(self, object_key: str) -> None:
        """Forget an object that is gone."""
        await self._session.execute(sa.delete(DiscardedRow).where(col(DiscardedRow.object_key) == object_key))

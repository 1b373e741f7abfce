"""All SQL of the audit log."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from session_api.models import AuditEntry


class AuditRepository:
    """Entries, in the caller's transaction: added and read, never changed."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, entry: AuditEntry) -> None:
        """Insert an entry."""
        self._session.add(entry)
        await self._session.flush()

    async def add_all(self, entries: Sequence[AuditEntry]) -> None:
        """Insert entries in their order."""
        rows = [entry.model_dump(exclude={"id"}) for entry in entries]
        await self._session.execute(sa.insert(AuditEntry), rows)

    async def newest(
        self, before: int | None, limit: int, actor: str | None, action: str | None
    ) -> Sequence[AuditEntry]:
        """Return up to `limit` entries, newest first, with an id below `before`, of one actor or action only."""
        question = sa.select(AuditEntry).order_by(col(AuditEntry.id).desc()).limit(limit)
        for column, value in ((col(AuditEntry.actor), actor), (col(AuditEntry.action), action)):
            if value is not None:
                question = question.where(column == value)
        if before is not None:
            question = question.where(col(AuditEntry.id) < before)
        return (await self._session.scalars(question)).all()

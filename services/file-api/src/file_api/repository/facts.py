"""SQL about the facts that were found by looking into blobs."""

from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from file_api.files import Blob, Scan
from file_api.inspect.inspection import Facts
from file_api.models import BlobRow, FileRow
from file_api.repository.blobs import as_blob


class Unexamined(NamedTuple):
    """A blob to look into, with the media type of its oldest file; None when it has no file any more."""

    blob: Blob
    media_type: str | None


class FactsRepository:
    """The facts of blobs inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lease(self, now: datetime, until: datetime) -> Unexamined | None:
        """Return a blob that has not been looked into, leased to the caller until then.

        Blobs that wait for a scan or have a virus are left out.
        """
        due = sa.select(BlobRow).where(
            col(BlobRow.facts_due_at) <= now, col(BlobRow.scan).in_([Scan.SKIPPED.value, Scan.CLEAN.value])
        )
        next_one = due.order_by(col(BlobRow.facts_due_at)).limit(1).with_for_update(skip_locked=True)
        row = (await self._session.scalars(next_one)).first()
        if row is None:
            return None
        row.facts_due_at = until
        files = sa.select(col(FileRow.media_type)).where(col(FileRow.blob_id) == row.blob_id)
        oldest = files.order_by(col(FileRow.stored_at)).limit(1)
        return Unexamined(as_blob(row), (await self._session.scalars(oldest)).first())

    async def note(self, blob_id: str, facts: Facts, thumbnail_type: str | None = None) -> bool:
        """Record what was found; False when the blob is gone. The blob is locked until the transaction ends.

        A fact that is None was not found out: the stored value stays.
        """
        found = {**facts._asdict(), "thumbnail_type": thumbnail_type}
        done = {"facts_due_at": None, "worker_losses": 0, "losses_count_from": None}
        values = {**done, **{name: value for name, value in found.items() if value is not None}}
        row = sa.update(BlobRow).where(col(BlobRow.blob_id) == blob_id).values(values)
        return (await self._session.scalars(row.returning(col(BlobRow.blob_id)))).first() is not None

    async def note_loss(self, blob_id: str, now: datetime, pause: timedelta) -> int:
        """Record that a worker was lost over a blob. Return how often this has happened; 0 when the blob is gone.

        Further losses count, and facts are looked for again, after `pause`, and after twice as long each time.
        """
        same = sa.select(BlobRow).where(col(BlobRow.blob_id) == blob_id).with_for_update()
        row = (await self._session.scalars(same)).first()
        if row is None:
            return 0
        if row.losses_count_from is None or row.losses_count_from <= now:
            row.losses_count_from = now + pause * 2**row.worker_losses
            row.worker_losses += 1
        if row.facts_due_at is not None:
            row.facts_due_at = row.losses_count_from
        return row.worker_losses

    async def note_no_thumbnail(self, blob_id: str) -> None:
        """Record that no thumbnail can be made of these bytes."""
        row = sa.update(BlobRow).where(col(BlobRow.blob_id) == blob_id).values(thumbnail_failed=True)
        await self._session.execute(row)

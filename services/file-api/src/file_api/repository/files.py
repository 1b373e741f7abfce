"""SQL about files and who may read them."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from file_api.files import StoredFile
from file_api.models import BlobRow, FileRow, Grant
from file_api.repository.blobs import as_blob

Reader = tuple[str, str]
"""A file id and a user id."""


class FileRepository:
    """Files and grants inside one transaction."""

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

    async def owners(self, file_ids: Collection[str]) -> dict[str, str]:
        """Return who uploaded each of these files; unknown ones are left out."""
        query = sa.select(col(FileRow.file_id), col(FileRow.owner_id)).where(
            col(FileRow.file_id) == sa.any_(_texts(file_ids))
        )
        return dict((await self._session.execute(query)).all())

    async def granted(self, readers: Collection[Reader]) -> set[Reader]:
        """Return those of `readers` that have a grant."""
        asked = _pairs(readers)
        query = sa.select(col(Grant.file_id), col(Grant.user_id)).join(
            asked, (col(Grant.file_id) == asked.c.file_id) & (col(Grant.user_id) == asked.c.user_id)
        )
        return {(file_id, user_id) for file_id, user_id in await self._session.execute(query)}

    async def grant(self, readers: Collection[Reader]) -> None:
        """Let users read files; doing it again changes nothing."""
        # One order for everybody: two transactions that grant the same rows then wait instead of deadlocking.
        rows = sa.select(_pairs(sorted(set(readers))))
        await self._session.execute(insert(Grant).from_select(["file_id", "user_id"], rows).on_conflict_do_nothing())


def _stored(file: FileRow, blob: BlobRow) -> StoredFile:
    return StoredFile(file.file_id, file.owner_id, file.name, file.media_type, file.stored_at, as_blob(blob))


def _texts(values: Collection[str]) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(list(values), ARRAY(sa.Text)), ARRAY(sa.Text))


def _pairs(readers: Collection[Reader]) -> sa.TableValuedAlias:
    # Two array parameters, however many rows: a statement takes 32,767 parameters, a group has more readers.
    columns = _texts([file_id for file_id, _ in readers]), _texts([user_id for _, user_id in readers])
    return sa.func.unnest(*columns).table_valued("file_id", "user_id").render_derived()

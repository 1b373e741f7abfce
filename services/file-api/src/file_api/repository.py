"""All SQL of file-api, named for its questions."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, cast
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col
from tlim_protocol.events import FileEvent
from tlim_protocol.subjects import subject_in
from tlim_runtime.database import Database

from file_api.files import StoredFile
from file_api.models import OUTBOX, FileRow, FileState, Grant

_PENDING, _STORED = FileState.PENDING.value, FileState.STORED.value

Reader = tuple[str, str]
"""A file id and a user id."""


class FileRepository:
    """Files and grants inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_pending(self, file_id: str, owner_id: str, now: datetime) -> None:
        """Note that an upload begins: from now on its bytes will be found, whatever happens to this process."""
        self._session.add(FileRow(file_id=file_id, owner_id=owner_id, created_at=now))

    async def mark_stored(self, file: StoredFile) -> bool:
        """Complete a pending file; False when it is not pending any more."""
        row = sa.update(FileRow).where(col(FileRow.file_id) == file.file_id, col(FileRow.state) == _PENDING)
        values = {"name": file.name, "media_type": file.media_type, "size": file.size, "sha256": file.sha256}
        done = await self._session.execute(row.values(state=_STORED, stored_at=file.stored_at, **values))
        return cast("sa.CursorResult[Any]", done).rowcount == 1

    async def find(self, file_id: str) -> StoredFile | None:
        """Return a stored file."""
        row = await self._session.get(FileRow, file_id)
        return None if row is None else _stored(row)

    async def owners(self, file_ids: Collection[str]) -> dict[str, str]:
        """Return who uploaded each of these files; unknown and pending ones are left out."""
        query = sa.select(col(FileRow.file_id), col(FileRow.owner_id)).where(
            col(FileRow.file_id) == sa.any_(_texts(file_ids)), col(FileRow.state) == _STORED
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

    async def announce(self, event: FileEvent) -> None:
        """Put an event into the outbox of this transaction."""
        subject = subject_in(event.msg_type, event.file_id)
        await OUTBOX.add(self._session, subject, event.to_bytes(), f"file:{event.file_id}:{uuid4().hex}")

    async def lock_pending(self, file_id: str) -> bool:
        """Keep everybody else from completing or removing a pending file; False when it is not pending."""
        query = _pending().where(col(FileRow.file_id) == file_id)
        return (await self._session.scalars(query)).first() is not None

    async def lock_abandoned(self, before: datetime) -> str | None:
        """Lock the oldest pending file whose upload began before that time and that nobody else works on."""
        query = _pending(skip_locked=True).where(col(FileRow.created_at) < before)
        return (await self._session.scalars(query.order_by(col(FileRow.created_at)).limit(1))).first()

    async def forget(self, file_id: str) -> None:
        """Remove the row of a file."""
        await self._session.execute(sa.delete(FileRow).where(col(FileRow.file_id) == file_id))


Transaction = Callable[[], AbstractAsyncContextManager[FileRepository]]
"""Opens a transaction: committed when its block ends, rolled back when it raises."""


def transactions(database: Database) -> Transaction:
    """Return how the rules open their transactions."""

    @asynccontextmanager
    async def open_one() -> AsyncIterator[FileRepository]:
        async with database.session() as session:
            yield FileRepository(session)

    return open_one


def _stored(row: FileRow) -> StoredFile | None:
    if row.state != _STORED:
        return None
    name, media_type, size, sha256, stored_at = row.name, row.media_type, row.size, row.sha256, row.stored_at
    assert name is not None and media_type and size and sha256 and stored_at  # noqa: S101, PT018 - the check constraint
    return StoredFile(row.file_id, row.owner_id, name, media_type, size, sha256, stored_at)


def _pending(*, skip_locked: bool = False) -> sa.Select[str]:
    query = sa.select(col(FileRow.file_id)).where(col(FileRow.state) == _PENDING)
    return query.with_for_update(skip_locked=skip_locked)


def _texts(values: Collection[str]) -> sa.ColumnElement[Any]:
    return sa.cast(sa.literal(list(values), ARRAY(sa.Text)), ARRAY(sa.Text))


def _pairs(readers: Collection[Reader]) -> sa.TableValuedAlias:
    # Two array parameters, however many rows: a statement takes 32,767 parameters, a group has more readers.
    columns = _texts([file_id for file_id, _ in readers]), _texts([user_id for _, user_id in readers])
    return sa.func.unnest(*columns).table_valued("file_id", "user_id").render_derived()

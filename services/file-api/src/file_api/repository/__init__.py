"""All SQL of file-api, one file for each table or task. Methods are named after the question that they answer."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession
from tlim_protocol.events import FileEvent
from tlim_protocol.subjects import subject_in
from tlim_runtime.database import Database

from file_api.models import OUTBOX
from file_api.repository.blobs import BlobRepository
from file_api.repository.direct import DirectRepository
from file_api.repository.discarded import DiscardedRepository
from file_api.repository.facts import FactsRepository
from file_api.repository.files import FileRepository
from file_api.repository.orphans import OrphanRepository
from file_api.repository.scans import ScanRepository
from file_api.repository.uploads import UploadRepository
from file_api.repository.usage import UsageRepository


class Repository:
    """All tables inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.uploads = UploadRepository(session)
        self.direct = DirectRepository(session)
        self.blobs = BlobRepository(session)
        self.files = FileRepository(session)
        self.facts = FactsRepository(session)
        self.discarded = DiscardedRepository(session)
        self.orphans = OrphanRepository(session)
        self.scans = ScanRepository(session)
        self.usage = UsageRepository(session)

    async def announce(self, event: FileEvent) -> None:
        """Put an event into the outbox of this transaction."""
        subject = subject_in(event.msg_type, event.file_id)
        await OUTBOX.add(self._session, subject, event.to_bytes(), f"file:{event.file_id}:{uuid4().hex}")


Transaction = Callable[[], AbstractAsyncContextManager[Repository]]
"""Opens a transaction: committed when its block ends, rolled back when it raises."""


def transactions(database: Database) -> Transaction:
    """Return how the rules open their transactions."""

    @asynccontextmanager
    async def open_one() -> AsyncIterator[Repository]:
        async with database.session() as session:
            yield Repository(session)

    return open_one

"""A download that is served is announced."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from file_api.files import Blob, Scan, StoredFile
from file_api.service import FileService
from tlim_protocol.events import FileEvent
from tlim_runtime.outages import DatabaseUnavailable

FILE = StoredFile("f1", "alice", "a.txt", "text/plain", datetime.now(UTC), Blob("f1", "00", 1, Scan.SKIPPED))


class Tables:
    """A database that hangs until `over`, and then fails if it `is_away`."""

    def __init__(self) -> None:
        self.events: list[FileEvent] = []
        self.asked = asyncio.Event()
        self.over = asyncio.Event()
        self.is_away = True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        self.asked.set()
        await self.over.wait()
        if self.is_away:
            raise DatabaseUnavailable
        yield self

    async def announce(self, event: FileEvent) -> None:
        self.events.append(event)


async def nothing() -> None:
    """The relay has nothing to do."""


def service_on(tables: Tables) -> FileService:
    unused: Any = None
    return FileService(
        tables.transaction, unused, unused, unused, nothing,
        max_upload_bytes=1, upload_timeout=timedelta(1), pending_expiry=timedelta(1),
    )  # fmt: skip


async def test_of_two_downloads_at_once_none_is_served_when_it_cannot_be_announced() -> None:
    tables = Tables()
    files = service_on(tables)
    downloads = [asyncio.ensure_future(files.announce_download(FILE, "bob")) for _ in range(2)]
    await tables.asked.wait()
    await asyncio.sleep(0)  # the second asks as well
    tables.over.set()
    outcomes = await asyncio.gather(*downloads, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable, DatabaseUnavailable]


async def test_two_downloads_at_once_are_announced_once() -> None:
    tables = Tables()
    tables.is_away = False
    tables.over.set()
    files = service_on(tables)
    await asyncio.gather(*(files.announce_download(FILE, "bob") for _ in range(2)))
    await files.announce_download(FILE, "bob")
    assert [event.user_id for event in tables.events] == ["bob"]

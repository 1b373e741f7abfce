"""Stores without locks of groups, so that a test says which of them writes when."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest_asyncio
from message_store.archive_repository import Archive
from message_store.directory import ServiceDirectory
from message_store.metrics import StoreMetrics
from message_store.publication import Publication
from message_store.service import Recorder
from message_store.values import ArrivedMessage
from tlim_protocol.events import SessionEvent
from tlim_runtime.broker import Broker
from tlim_runtime.metrics import Metrics
from tlim_runtime.transactions import Connection

NOW = 1_700_000_000_000


async def nothing() -> None:
    """What usually happens between looking up and writing."""


class _Watched(Archive):
    """An archive that lets something else happen once between looking up and writing."""

    meanwhile: Callable[[], Awaitable[object]] = staticmethod(nothing)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        meanwhile, self.meanwhile = self.meanwhile, nothing
        await meanwhile()
        async with super().transaction():
            yield


class Store(NamedTuple):
    """What one store works with: the same as in duty.py, without the locks of groups."""

    connection: Connection
    archive: _Watched
    broker: Broker
    publication: Publication
    recorder: Recorder

    async def record(self, *items: Any) -> list[str | None]:
        read = [one if isinstance(one, SessionEvent) else ArrivedMessage.of(one, NOW) for one in items]
        return await self.recorder.record(read)


NewStore = Callable[[], Awaitable[Store]]


@pytest_asyncio.fixture
async def new_store(world: Any) -> AsyncIterator[NewStore]:
    async with AsyncExitStack() as stack:

        async def new() -> Store:
            connection = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
            stack.push_async_callback(connection.close)
            archive, metrics = _Watched(connection), StoreMetrics(Metrics())
            broker = await world.connect("message-store")
            publication = Publication(archive, broker, metrics)
            recorder = Recorder(
                archive, ServiceDirectory(broker, timedelta(seconds=2)), publication, metrics, now=lambda: NOW,
                recall_window=0, read_to_all=200,
            )  # fmt: skip
            await publication.restore()
            return Store(connection, archive, broker, publication, recorder)

        yield new

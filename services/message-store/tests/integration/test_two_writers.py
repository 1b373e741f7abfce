"""Two stores that write at the same time: each message is stored once, whoever stores it."""

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
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage
from tlim_runtime.broker import Broker
from tlim_runtime.metrics import Metrics

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
    """What one store works with: the same as in app.py, without an election."""

    archive: _Watched
    broker: Broker
    publication: Publication
    recorder: Recorder

    async def record(self, *messages: Any) -> list[str | None]:
        return await self.recorder.record([ArrivedMessage.of(message, NOW) for message in messages])


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
            return Store(archive, broker, publication, recorder)

        yield new


async def test_a_message_that_another_store_has_stored_meanwhile_is_confirmed_and_not_delivered_again(
    world: Any, new_store: NewStore, accepted: Any
) -> None:
    one, other = await new_store(), await new_store()
    one.archive.meanwhile = lambda: other.record(accepted("m1"))
    assert await one.record(accepted("m1")) == [None]
    assert [row["msg_id"] for row in await world.rows()] == ["m1"]
    assert [(event.seq, event.recipients) for event in await world.out()] == [(1, ["bob"]), (1, [])]


async def test_a_msg_id_that_another_store_has_given_to_another_message_meanwhile_is_refused(
    world: Any, new_store: NewStore, accepted: Any
) -> None:
    one, other = await new_store(), await new_store()
    one.archive.meanwhile = lambda: other.record(accepted("m1", to="carol"))
    assert await one.record(accepted("m1")) == [None]
    assert [row["conversation_id"] for row in await world.rows()] == ["u:alice:carol"]
    (refused,) = [event for event in await world.out() if isinstance(event, RejectedMessage)]
    assert (refused.msg_id, refused.code) == ("m1", ErrorCode.FIELD_INVALID)


async def test_what_a_store_has_published_is_noted_before_it_goes_on(
    world: Any, new_store: NewStore, accepted: Any
) -> None:
    one = await new_store()
    await one.record(accepted("m1"), accepted("m2"))
    assert await world.sql("SELECT published_seq FROM publication") == [(2,)]

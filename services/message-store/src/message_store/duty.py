"""What a store does on the connection that holds its locks: consume, store, publish, and look after what is stored."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Protocol

from tlim_protocol.events import SessionEvent
from tlim_protocol.streams import STORE_INBOXES, StreamName, store_group
from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Broker
from tlim_runtime.consumer import BatchConsumer
from tlim_runtime.database import Database
from tlim_runtime.health import Ping
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import DatabaseUnavailable, Unavailable
from tlim_runtime.pulse import held
from tlim_runtime.transactions import Connection

from message_store.archive_repository import Archive
from message_store.catch_up import CatchUp
from message_store.directory import ASK_HUNG_EVERY_S, ServiceDirectory
from message_store.earlier_consumer import pass_over_stored
from message_store.errors import DirectoryUnavailable
from message_store.gathering import GATHER_EVERY_S, Gathering
from message_store.leadership import Leadership
from message_store.metrics import StoreMetrics
from message_store.operate.census import counting
from message_store.publication import Publication
from message_store.service import Recorder
from message_store.settings import Settings
from message_store.shares import UPKEEP
from message_store.subscribers import StoreInbox
from message_store.together import Together
from message_store.upkeep import room_for_messages, upkeep

logger = get_logger(__name__)

TEST_EVERY_S = 1.0
"""How often a store tests its connection, even when idle."""

LOOK_EVERY_S = 1.0
"""How often a store looks whether it can work at all."""

AWAY_S = 15.0
"""After so long without JetStream a store leaves its share to others, which may have it. A restarted NATS, and an
election, take less."""

MOST_BYTES = 16 * 1024**2
"""The most that goes into a transaction together, in bytes; a larger batch goes alone."""

GROUP_BYTES = 2 * (1024**2 - 3)
"""The largest batch of a group, and the most that waits beside it: for all eight groups together as much as one
consumer may have. Its half is prime on purpose (tlim_runtime/pull.py)."""

CATCH_UP_EVERY_S = 2.0
"""How often we look for a missing change of a session and ask for it. A change that is only late arrives within
milliseconds."""


class Duty:
    """Makes what a store works with, for each connection anew."""

    def __init__(self, settings: Settings, broker: Broker, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._broker = broker
        self._database = database
        self._all_metrics = metrics
        self._metrics = StoreMetrics(metrics)
        self._term: Term | None = None
        self._has_room = False
        self._able_at = float("-inf")
        self._unable = "nobody has looked yet"
        self.looking = Repeated("what a store needs", self._look, LOOK_EVERY_S)

    def leadership(self) -> Leadership:
        """Return what takes parts of the work for this duty."""
        url = self._settings.database_url.get_secret_value()
        poll = self._settings.leadership_poll.total_seconds()
        return Leadership(url, self.serve, poll, self._metrics.has, self._is_able)

    def _is_able(self) -> bool:
        return self._has_room and time.monotonic() - self._able_at < AWAY_S

    async def _look(self) -> None:
        """Ask for what a store needs. Whoever could not work must not join the others: they would leave it a share."""
        try:
            await self._broker.stream_state(StreamName.IN)
            if not self._has_room:
                await room_for_messages(self._database, self._settings.partition_span)
        except Exception as error:
            self._unable = str(error) or type(error).__name__
            raise
        self._has_room = True
        self._able_at = time.monotonic()

    async def ping(self) -> None:
        """Raise with the reason while something is not done that is a part of this store, or it can do nothing."""
        if not self._is_able():
            raise Unavailable(self._unable)
        if self._term is not None:
            for ping in self._term.pings():
                await ping()

    @asynccontextmanager
    async def serve(self, connection: Connection) -> AsyncIterator["Term"]:
        """Work with the connection while entered; no part of the work is begun yet."""
        term = Term(self._settings, self._broker, self._database, self._all_metrics, connection)
        try:
            async with term.running():
                self._term = term
                yield term
        finally:
            self._term = None
            self._has_room, self._unable = False, "the connection has ended"  # nobody looks after room in our name
            self.looking.wake()
            self._metrics.lag(0)
            self._metrics.resigned()  # when nothing of the upkeep can count once more


class Term:
    """The work of a store on one connection: begins and ends parts of it (leadership.StoreWork)."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        database: Database,
        all_metrics: Metrics,
        connection: Connection,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._database = database
        self._all_metrics = all_metrics
        self._metrics = metrics = StoreMetrics(all_metrics)
        self._connection = connection
        self._archive = Archive(connection, keep_recalled_text=settings.keep_recalled_text)
        self._publication = Publication(self._archive, broker, metrics)
        self._directory = ServiceDirectory(broker, settings.user_lookup_timeout)
        window = int(settings.recall_window.total_seconds() * 1000)
        recorder = Recorder(
            self._archive, self._directory, self._publication, metrics, now=_now_ms, recall_window=window,
            read_to_all=settings.read_to_all,
        )  # fmt: skip
        self._consumers: dict[int, BatchConsumer] = {}
        self._catch_up = CatchUp(recorder, self._directory, self._is_ours)
        self._preparation = Preparation(self._publication, self._catch_up, self._consumers.keys())
        self._inbox = Together(StoreInbox(recorder, metrics).handle, settings.batch_size, MOST_BYTES)
        self._upkeep = AsyncExitStack()
        self._upkept: Sequence[Ping] = ()
        self._always: Sequence[Ping] = ()

    def pings(self) -> Iterator[Ping]:
        """Yield the pings of everything that runs."""
        yield from [consumer.ping for consumer in self._consumers.values()]
        yield from (*self._upkept, *self._always)

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Enter alone: nothing else uses the connection inside."""
        return self._publication.turn()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On leaving finish the batches, or drop them at once when the connection is gone."""
        test = partial(_test, self._archive, self._publication, self._connection)
        tests = Repeated("tests of the store's connection", test, TEST_EVERY_S, at_once=False)
        look = partial(_catch_up, self._catch_up, self._preparation)
        changes = Repeated("changes of sessions", look, CATCH_UP_EVERY_S, at_once=False)
        hung = Repeated("services that hang", self._directory.ask_hung, ASK_HUNG_EVERY_S, at_once=False)
        self._broker.on_disconnect(self._publication.doubt)
        self._broker.on_disconnect(self._preparation.doubt)
        try:
            async with running(tests), running(changes), running(hung):
                self._always = (tests.ping, changes.ping, hung.ping)
                try:
                    yield
                finally:
                    await self._end_all()
        finally:
            self._broker.forget_disconnect(self._preparation.doubt)
            self._broker.forget_disconnect(self._publication.doubt)

    async def begin(self, part: int) -> None:
        """Begin with a part, whose lock this connection holds; raises Unavailable if that is not possible now."""
        if part == UPKEEP:
            self._upkept = await self._begin_upkeep()
            return
        spec = STORE_INBOXES[part]
        await pass_over_stored(self._broker, spec)
        consumer = self._consumers[part] = BatchConsumer(
            self._broker, spec, self._inbox.handle, batch=self._settings.batch_size, most=GROUP_BYTES,
            prepare=partial(self._preparation.of_a_group, part), check=self._require_locks, metrics=self._all_metrics,
        )  # fmt: skip
        await consumer.start()

    def _require_locks(self) -> None:
        """Raise DatabaseUnavailable when the connection is gone: another store may have our groups.

        A process that was stopped for long would otherwise reset the consumers of that store when it goes on.
        """
        if self._connection.is_closed():
            raise DatabaseUnavailable("the connection with the locks of the groups is gone")

    async def end(self, group: int) -> None:
        """Finish the batch of a group, and consume no more of it."""
        await self._consumers[group].stop()
        del self._consumers[group]
        self._preparation.forget(group)

    def _is_ours(self, event: SessionEvent) -> bool:
        return store_group(event.session_id) in self._consumers

    async def _begin_upkeep(self) -> Sequence[Ping]:
        async with AsyncExitStack() as stack:
            span = self._settings.partition_span
            kept = await stack.enter_async_context(upkeep(self._database, self._metrics, span))
            counted = await stack.enter_async_context(counting(self._database, self._broker, self._metrics))
            gathering = Gathering(self._archive, self._publication, _now_ms)
            receipts = Repeated("gathered receipts", gathering.tell, GATHER_EVERY_S, at_once=False)
            await stack.enter_async_context(running(receipts))
            self._upkeep = stack.pop_all()
        return (*kept, *counted, receipts.ping)

    async def _end_all(self) -> None:
        is_lost = self._connection.is_closed()
        consumers = list(self._consumers.values())
        try:
            await asyncio.gather(*(one.abort() if is_lost else one.stop() for one in consumers))
        finally:
            await self._upkeep.aclose()


class Comparison(Protocol):
    """What compares table and stream (publication.Publication)."""

    @property
    def is_certain(self) -> bool:
        """Whether they were compared, and nothing has happened since."""

    async def restore(self) -> None:
        """Compare them, and publish what is missing."""


class MissingChanges(Protocol):
    """What asks for missing changes of sessions (catch_up.CatchUp)."""

    async def run(self) -> None:
        """Ask, and apply them; raises DirectoryUnavailable without an answer."""


class Preparation:
    """What comes before the first message: everything committed is published, and no change of a session is missing.

    A group that this store takes may be one of a store that has died between commit and publication. So table and
    stream are compared for each. Changes are asked for once for all groups that the store has: when it takes some, and
    when the broker was away.
    """

    def __init__(self, publication: Comparison, catch_up: MissingChanges, groups: Collection[int]) -> None:
        self._publication = publication
        self._catch_up = catch_up
        self._groups = groups  # as they are at the time
        self._complete: set[int] = set()
        self._doubts = 0
        self._turn = asyncio.Lock()

    def doubt(self) -> None:
        """Ask anew for every group: the broker may have lost changes."""
        self._doubts += 1
        self._complete.clear()

    def forget(self, group: int) -> None:
        """Ask anew if this group comes back: another store has it meanwhile."""
        self._doubts += 1
        self._complete.discard(group)

    async def of_a_group(self, group: int) -> None:
        """Compare table and stream; ask for missing changes if something may have been lost since the last time."""
        async with held(self._turn):
            if not self._publication.is_certain:
                self.doubt()
            await self._publication.restore()
            if group not in self._complete:
                groups, doubts = set(self._groups), self._doubts
                with suppress(DirectoryUnavailable):  # messages go on, and `again` asks until there is an answer
                    await self._catch_up.run()
                if self._doubts == doubts:
                    self._complete |= groups

    async def again(self) -> None:
        """Compare table and stream, and ask for missing changes; raises DirectoryUnavailable without an answer."""
        async with held(self._turn):
            await self._publication.restore()
            await self._catch_up.run()


async def _catch_up(catch_up: CatchUp, preparation: Preparation) -> None:
    if await catch_up.is_due():
        await preparation.again()


async def _test(archive: Archive, publication: Publication, connection: Connection) -> None:
    try:
        async with publication.turn():  # nobody else may use the connection meanwhile
            await archive.ping()
    except Exception as error:  # noqa: BLE001 - a connection that answers nothing is of no use
        logger.warning("the store's connection failed", reason=str(error) or type(error).__name__)
        connection.terminate()  # gives the locks up; the next term begins on a new connection


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

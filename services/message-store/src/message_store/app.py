"""Putting message-store together: its resources, opened in order and closed in reverse."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from tlim_protocol.streams import STORE_INBOXES
from tlim_protocol.subjects import Rpc
from tlim_runtime.app import build_app
from tlim_runtime.background import Background, Repeated, running
from tlim_runtime.broker import Broker
from tlim_runtime.clocks import clock_responder
from tlim_runtime.consumer import BatchConsumer
from tlim_runtime.database import QUESTIONS_POOL, Database
from tlim_runtime.deactivation import asked_of_session_api, deactivated_users_refused
from tlim_runtime.health import Ping
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.pulse import waiting
from tlim_runtime.reports import reporting
from tlim_runtime.transactions import Connection

from message_store.archive_repository import Archive
from message_store.catch_up import CatchUp
from message_store.directory import ASK_HUNG_EVERY_S, ServiceDirectory
from message_store.earlier_consumer import pass_over_stored
from message_store.gathering import GATHER_EVERY_S, Gathering
from message_store.leadership import Leadership, Role
from message_store.mailbox.subscribers import MISSED_AT_ONCE, live_responder, missed_responder, note_responder
from message_store.metrics import StoreMetrics
from message_store.operate import endpoints as operations
from message_store.operate.census import counting
from message_store.operate.watch import Watch
from message_store.publication import Publication
from message_store.reading.endpoints import router
from message_store.search.endpoints import router as search_router
from message_store.service import Recorder
from message_store.settings import Settings
from message_store.subscribers import StoreInbox, grants_responder, recalled_responder
from message_store.together import Together
from message_store.upkeep import upkeep

logger = get_logger(__name__)

TEST_EVERY_S = 1.0
"""How often the leader tests its connection, even when idle."""

OWN_POOL = QUESTIONS_POOL + MISSED_AT_ONCE + 4
"""Connections that HTTP readers never use: those for NATS questions, and four for partitions, the search index and
what operators see."""

GROUP_BYTES = 2 * (1024**2 - 3)
"""The largest batch of a group, and the most that waits beside it: for all eight groups together as much as one
consumer may have. Its half is prime on purpose (tlim_runtime/pull.py)."""

CATCH_UP_EVERY_S = 2.0
"""How often we look for a missing change of a session and ask for it. A change that is only late arrives within
milliseconds."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; opens nothing."""
    return build_app(
        "message-store",
        version("message-store"),
        settings,
        lifespan,
        [router, search_router, operations.router, operations.page],
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open PostgreSQL and NATS, answer questions, stand for leader; undo all of it in reverse."""
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value(), settings.database_pool_size)
        stack.push_async_callback(database.close)
        own = Database(settings.database_url.get_secret_value(), OWN_POOL)
        stack.push_async_callback(own.close)
        broker = await Broker.of_service(settings, app.state.metrics.tracing)
        stack.push_async_callback(broker.close)
        await broker.respond(Rpc.MESSAGE_GRANTS, grants_responder(own), settings.service)
        await broker.respond(Rpc.CLOCK, clock_responder(), settings.service)
        await broker.respond(Rpc.MESSAGE_RECALLED, recalled_responder(own), settings.service)
        await broker.respond(Rpc.MAILBOX_NOTE, note_responder(own), settings.service)
        await broker.respond(Rpc.MAILBOX_LIVE, live_responder(own, broker), settings.service)
        await broker.respond(Rpc.MAILBOX_MISSED, missed_responder(own, broker), settings.service)
        duty = Duty(settings, broker, own, app.state.metrics)
        leadership = duty.leadership()
        election = Background("leadership", leadership.run)
        await stack.enter_async_context(running(election))
        await stack.enter_async_context(deactivated_users_refused(asked_of_session_api(broker), app.state.tokens))
        await stack.enter_async_context(reporting(app, broker, settings.service))
        app.state.watch = Watch(broker, own)
        app.state.database, app.state.leadership = database, leadership
        app.state.health.add("postgres", own.ping)
        app.state.health.add("nats", broker.ping)
        app.state.tokens.looked_after(app.state.health)
        app.state.health.add("leadership", leadership.ping)
        app.state.health.add("election", election.ping)
        app.state.health.add("inbox", duty.ping)
        yield


class Duty:
    """What the leader does: consume, store, publish, on the connection that holds the lock."""

    def __init__(self, settings: Settings, broker: Broker, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._broker = broker
        self._database = database
        self._all_metrics = metrics
        self._metrics = StoreMetrics(metrics)
        self._pings: Sequence[Ping] = ()

    def leadership(self) -> Leadership:
        """Return the election that calls this duty."""
        url = self._settings.database_url.get_secret_value()
        poll = self._settings.leadership_poll.total_seconds()
        return Leadership(url, self.lead, poll, lambda role: self._metrics.leading(role is Role.LEADER))

    async def ping(self) -> None:
        """Raise with the reason while this instance leads and something that a leader does is not done."""
        for ping in self._pings:
            await ping()

    @asynccontextmanager
    async def lead(self, connection: Connection) -> AsyncIterator[None]:
        """Store, and look after what has been stored, while entered."""
        span = self._settings.partition_span
        try:
            async with (
                upkeep(self._database, self._metrics, span) as kept,
                counting(self._database, self._broker, self._metrics) as counted,
                self._storing(connection) as stored,
            ):
                self._pings = (*kept, *counted, *stored)
                try:
                    yield
                finally:
                    self._pings = ()
        finally:
            self._metrics.resigned()  # when nothing of the above can count once more

    @asynccontextmanager
    async def _storing(self, connection: Connection) -> AsyncIterator[Sequence[Ping]]:
        """Consume while entered; on leaving finish the batch, or drop it at once when the connection is gone.

        Gives the pings of all that runs meanwhile.
        """
        archive = Archive(connection, keep_recalled_text=self._settings.keep_recalled_text)
        publication = Publication(archive, self._broker, self._metrics)
        directory = ServiceDirectory(self._broker, self._settings.user_lookup_timeout)
        window = int(self._settings.recall_window.total_seconds() * 1000)
        recorder = Recorder(
            archive, directory, publication, self._metrics, now=_now_ms, recall_window=window,
            read_to_all=self._settings.read_to_all,
        )  # fmt: skip
        gathering = Gathering(archive, publication, _now_ms)
        catch_up = CatchUp(recorder, directory)
        inbox = Together(StoreInbox(recorder, self._metrics).handle, self._settings.batch_size)
        preparation = Preparation(publication, catch_up)
        consumers = [
            BatchConsumer(
                self._broker, spec, inbox.handle, batch=self._settings.batch_size, most=GROUP_BYTES,
                prepare=preparation.of_a_group, metrics=self._all_metrics,
            )
            for spec in STORE_INBOXES
        ]  # fmt: skip
        self._broker.on_disconnect(publication.doubt)
        await pass_over_stored(self._broker)
        for consumer in consumers:
            await consumer.start()
        test = partial(_test, archive, publication, connection)
        tests = Repeated("tests of the leader's connection", test, TEST_EVERY_S, at_once=False)
        tests.start()
        look = partial(_catch_up, catch_up, preparation)
        changes = Repeated("changes of sessions", look, CATCH_UP_EVERY_S, at_once=False)
        changes.start()
        receipts = Repeated("gathered receipts", gathering.tell, GATHER_EVERY_S, at_once=False)
        receipts.start()
        hung = Repeated("services that hang", directory.ask_hung, ASK_HUNG_EVERY_S, at_once=False)
        hung.start()
        try:
            yield *(one.ping for one in consumers), tests.ping, changes.ping, receipts.ping, hung.ping
        finally:
            self._broker.forget_disconnect(publication.doubt)
            await hung.stop()
            await receipts.stop()
            await changes.stop()
            is_lost = connection.is_closed()
            await asyncio.gather(*(one.abort() if is_lost else one.stop() for one in consumers))
            await tests.stop()


class Preparation:
    """What comes before the first message: everything committed is published, and no change of a session is missing.

    All groups wait for it at a start, and when the broker is back, so changes are asked for once.
    """

    def __init__(self, publication: Publication, catch_up: CatchUp) -> None:
        self._publication = publication
        self._catch_up = catch_up
        self._turn = asyncio.Lock()

    async def of_a_group(self) -> None:
        """Compare table and stream; ask for missing changes if something may have been lost since the last time."""
        with waiting():
            await self._turn.acquire()
        try:
            was_certain = self._publication.is_certain
            await self._publication.restore()
            if not was_certain:
                await self._catch_up.run()
        finally:
            self._turn.release()

    async def again(self) -> None:
        """Compare table and stream, and ask for missing changes."""
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
        logger.warning("the leader's connection failed", reason=str(error) or type(error).__name__)
        connection.terminate()  # gives the lock up; the next term begins on a new connection


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

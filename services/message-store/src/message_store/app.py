"""Putting message-store together: its resources, opened in order and closed in reverse."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from tlim_protocol.subjects import Rpc
from tlim_runtime.app import build_app
from tlim_runtime.background import Background, running
from tlim_runtime.broker import Broker
from tlim_runtime.clocks import clock_responder
from tlim_runtime.database import QUESTIONS_POOL, Database
from tlim_runtime.deactivation import asked_of_session_api, deactivated_users_refused
from tlim_runtime.logging import get_logger
from tlim_runtime.reports import reporting

from message_store.duty import Duty
from message_store.mailbox.subscribers import MISSED_AT_ONCE, live_responder, missed_responder, note_responder
from message_store.operate import endpoints as operations
from message_store.operate.watch import Watch
from message_store.reading.endpoints import router
from message_store.search.endpoints import router as search_router
from message_store.settings import Settings
from message_store.subscribers import grants_responder, recalled_responder

logger = get_logger(__name__)

OWN_POOL = QUESTIONS_POOL + MISSED_AT_ONCE + 4
"""Connections that HTTP readers never use: those for NATS questions, and four for partitions, the search index and
what operators see."""


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
    """Open PostgreSQL and NATS, answer questions, take a share of the work; undo all of it in reverse."""
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
        await stack.enter_async_context(running(duty.looking))
        election = Background("leadership", leadership.run)
        await stack.enter_async_context(running(election))
        asked, tokens = asked_of_session_api(broker), app.state.tokens
        await stack.enter_async_context(deactivated_users_refused(asked, tokens, app.state.health))
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

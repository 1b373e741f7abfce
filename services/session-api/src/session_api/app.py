"""The application: opens what the service needs in order, closes it in reverse."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from tlim_runtime.app import build_app
from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Broker
from tlim_runtime.clocks import compared_clock
from tlim_runtime.database import QUESTIONS_POOL, Database
from tlim_runtime.deactivation import deactivated_users_refused
from tlim_runtime.outbox import OutboxRelay
from tlim_runtime.reports import reporting
from tlim_runtime.shared_limits import limits_shared
from tlim_runtime.throttle import Throttle

from session_api import audit_endpoints, endpoints, import_endpoints, legacy_endpoints, users_endpoints
from session_api.dependencies import DeactivatedUsers, audit_service, revocations_of
from session_api.errors import install_import_errors
from session_api.metrics import SessionMetrics
from session_api.models import OUTBOX
from session_api.service import largest_event
from session_api.settings import Settings
from session_api.subscribers import Subscribers
from session_api.xmpp_accounts import XmppAccounts

OWN_POOL = QUESTIONS_POOL + 3
"""Connections of the service's own, besides those of requests over HTTP. Three are for the outbox relay, for the taking
back of a revocation, and for the lock of an import, which holds its connection for minutes."""

BACKUP_EVERY_S = 60.0
"""How often the audit log is asked for the last backup."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; nothing is opened before its lifespan starts."""
    app = build_app(
        "session-api",
        "0.1.0",
        settings,
        lifespan,
        [
            legacy_endpoints.router,
            endpoints.router,
            users_endpoints.router,
            import_endpoints.router,
            audit_endpoints.router,
        ],
    )
    install_import_errors(app)
    return app


def check_room(settings: Settings, max_payload: int) -> None:
    """Raise ValueError, which ends the start, when an event of the largest group would exceed NATS' max_payload."""
    limit = settings.session_max_subscribers
    largest = largest_event(limit)
    if largest > max_payload:
        raise ValueError(
            f"TLIM_SESSION_MAX_SUBSCRIBERS: an event of {limit} people may have {largest} bytes, and NATS takes"
            f" {max_payload} (max_payload): lower the limit or raise max_payload"
        )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open database, broker, outbox relay and RPC doors, each with its ping for /readyz; close them in reverse."""
    settings: Settings = app.state.settings
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value(), settings.database_pool_size)
        stack.push_async_callback(database.close)
        own = Database(settings.database_url.get_secret_value(), OWN_POOL)
        stack.push_async_callback(own.close)
        broker = await Broker.of_service(settings, app.state.metrics.tracing)
        stack.push_async_callback(broker.close)
        check_room(settings, broker.max_payload)
        relay = OutboxRelay(own, broker, OUTBOX, app.state.metrics)
        await relay.start()
        stack.push_async_callback(relay.stop)
        await Subscribers(own).listen(broker)
        app.state.database, app.state.own_database = database, own
        app.state.xmpp_accounts = XmppAccounts.of(settings)
        if app.state.xmpp_accounts is not None:
            stack.callback(app.state.xmpp_accounts.close)
        app.state.outbox_relay = relay
        app.state.pace = Throttle(settings.session_changes_per_user, "user")
        app.state.revocations = revocations_of(own, relay, settings)
        app.state.health.add("postgres", own.ping)
        app.state.health.add("nats", broker.ping)
        app.state.tokens.looked_after(app.state.health)
        app.state.health.add("outbox", relay.ping)
        metrics = SessionMetrics(app.state.metrics)

        async def look_for_backup() -> None:
            async with own.session() as session:
                metrics.last_backup(await audit_service(session).last_backup())

        await stack.enter_async_context(running(Repeated("last backup", look_for_backup, BACKUP_EVERY_S)))
        limits = {"session_changes": app.state.pace}
        await stack.enter_async_context(limits_shared(broker, settings.service, app.state.metrics, limits=limits))
        await stack.enter_async_context(compared_clock(broker, app.state.health))
        deactivated = DeactivatedUsers(own)
        app.state.health.warn("deactivated users", deactivated.warning)
        tokens = app.state.tokens
        await stack.enter_async_context(deactivated_users_refused(deactivated.read, tokens, app.state.health))
        await stack.enter_async_context(reporting(app, broker, settings.service))
        yield

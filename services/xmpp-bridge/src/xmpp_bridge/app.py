"""The application: opens NATS, then the XMPP connection, then the flow of deliveries; closes them in reverse."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from xml.etree.ElementTree import Element

from fastapi import FastAPI
from tlim_protocol.events import OutEvent
from tlim_protocol.streams import BRIDGE_OUTBOXES
from tlim_runtime.app import build_app
from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Broker
from tlim_runtime.clocks import compared_clock
from tlim_runtime.consumer import BatchConsumer
from tlim_runtime.deactivation import asked_of_session_api, deactivated_users_refused
from tlim_runtime.reports import reporting
from tlim_runtime.shared_limits import limits_shared
from tlim_runtime.throttle import Throttle

from xmpp_bridge import endpoints, message_endpoints
from xmpp_bridge.answers import Answers
from xmpp_bridge.attendance import Attendance
from xmpp_bridge.awaited import Awaited
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.certificates import end_at_gateway
from xmpp_bridge.component import Component, ComponentDown
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.fence import FencedLine
from xmpp_bridge.footprint import footprint
from xmpp_bridge.lanes import PORTIONS_AT_ONCE
from xmpp_bridge.mailroom import Mailroom
from xmpp_bridge.metrics import BridgeMetrics
from xmpp_bridge.pace import SenderPace
from xmpp_bridge.presences import read_presence
from xmpp_bridge.sasl import SaslLogin
from xmpp_bridge.service import MessageIntake
from xmpp_bridge.settings import Settings
from xmpp_bridge.shards import ShardParts, Shards
from xmpp_bridge.shares import Held
from xmpp_bridge.subscribers import OutboxSubscriber
from xmpp_bridge.system_service import SystemSender
from xmpp_bridge.token_requests import TokenRequests
from xmpp_bridge.token_service import TokenDesk
from xmpp_bridge.tokens import TokenIssuer, read_keys
from xmpp_bridge.translate import BridgeAddresses

_BESIDE = 1_000
"""System messages and dead letters are published beside the messages in flight. There is room for this many."""

MOST_IN_BATCH = 4 * 1024**2 - 18
"""The largest batch of deliveries of a shard, in bytes of memory. 500 messages of usual size need half of it. All eight
shards may be in one bridge: this, what waits, and the slow lanes must fit into the 512 MiB of deploy/k8s. Half of it is
prime (tlim_runtime.pull)."""

CERTIFICATE_EVERY_S = 300.0
"""How often we look at the certificate that clients are shown. It ends in weeks."""


def create_app(settings: Settings) -> FastAPI:
    """Return the service's application; nothing is opened before its lifespan begins."""
    return build_app("tlim xmpp-bridge", "0.1.0", settings, _lifespan, [endpoints.router, message_endpoints.router])


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.token_issuer = TokenIssuer(
        read_keys(settings.token_key_file), settings.token_issuer, settings.token_audience
    )
    unacknowledged = settings.in_flight_limit + _BESIDE
    broker = await Broker.of_service(settings, app.state.metrics.tracing, max_pending=unacknowledged)
    app.state.health.add("nats", broker.ping)
    logins = _logins(settings)
    attempts, sending = _token_limits(settings), _sender_limits(settings)
    app.state.token_desk = _token_desk(settings, broker, app.state.token_issuer, logins, attempts)
    try:
        async with (
            compared_clock(broker, app.state.health),
            deactivated_users_refused(asked_of_session_api(broker), app.state.tokens, app.state.health),
            running(_certificate(app, "xmpp", logins.certificate_ends)),
            running(_certificate(app, "gateway", partial(_gateways_end, settings))),
            reporting(app, broker, settings.service),
            limits_shared(
                broker,
                settings.service,
                app.state.metrics,
                limits=sending,
                at_once={f"token_{name}": throttle for name, throttle in attempts.items()},  # few, and worth guessing
            ),
            _messages(app, settings, broker, SenderPace(**sending)),
        ):
            yield
    finally:
        await broker.close()


@asynccontextmanager
async def _messages(app: FastAPI, settings: Settings, broker: Broker, pace: SenderPace) -> AsyncIterator[None]:
    """Keep messages flowing both ways.

    Shutdown takes three steps. First, the batches of deliveries in hand are finished, and the shards are given up. Then
    the server is told to send new messages to other bridges, and the bridge waits until JetStream has acknowledged what
    came. Last, the XMPP stream is closed. A server without our module may send until then, so the bridge waits for
    JetStream again.
    """
    addresses = BridgeAddresses(settings.xmpp_domain.lower(), settings.component_jid.lower())
    component, awaited, instance = _component(settings, addresses), Awaited(), secrets.token_hex(8)
    intake = MessageIntake(
        addresses,
        broker,
        component,
        app.state.metrics,
        pace=pace,
        in_flight_limit=settings.in_flight_limit,
        accept=settings.accept,
        is_deactivated=app.state.tokens.is_refused,
        via=instance,
    )
    app.state.system_sender = SystemSender(
        broker, awaited, settings.system_users, settings.system_send_timeout, pace=pace, via=instance
    )
    requests = TokenRequests(app.state.token_desk, component, addresses)

    def heard(event: OutEvent) -> None:
        awaited.settle(event)
        pace.heard(event)

    answers = Answers(broker, instance, heard)
    shards = _shards(app, settings, broker, component, addresses=addresses, answers=answers, instance=instance)
    ours = BridgeMetrics(app.state.metrics)
    ours.connection.set_function(lambda: component.is_connected)
    app.state.health.add("xmpp", component.ping)
    app.state.health.add("publishing", intake.ping)
    app.state.health.add("shards", shards.ping)
    app.state.health.add("deliveries", shards.ping_deliveries)
    app.state.health.add("mailboxes", shards.ping_mailboxes)

    def hear(presence: Element) -> None:
        sign = read_presence(presence, addresses)
        if sign is not None:
            shards.hear(sign)

    def lost() -> None:
        intake.connection_lost()
        shards.went_down()

    await answers.start()
    await shards.start()
    component.start(intake.take, requests.take, on_presence=hear, on_up=shards.went_up, on_lost=lost)
    try:
        yield
    finally:
        await shards.stop()
        await _leave(component, intake, requests, settings.shutdown_grace.total_seconds())
        await answers.stop()


async def _leave(component: Component, intake: MessageIntake, requests: TokenRequests, grace_s: float) -> None:
    """Send new messages to other bridges, and close the stream when what came is stored, or after `grace_s`."""
    deadline = asyncio.get_running_loop().time() + grace_s
    with suppress(TimeoutError, ComponentDown):
        async with asyncio.timeout_at(deadline):
            await component.leave(intake.drained)
            intake.leave()
    await component.close()
    await requests.close()
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await intake.drained()


def _shards(
    app: FastAPI,
    settings: Settings,
    broker: Broker,
    component: Component,
    *,
    addresses: BridgeAddresses,
    answers: Answers,
    instance: str,
) -> Shards:
    """Return what opens a shard of this bridge whenever its lease is taken."""
    attendance, culprits, metrics = Attendance(), Culprits(), app.state.metrics
    slots = asyncio.Semaphore(PORTIONS_AT_ONCE)

    def make(held: Held, outdated: Callable[[], None]) -> ShardParts:
        line, spec = FencedLine(component, held.check), BRIDGE_OUTBOXES[held.shard]
        mailroom = Mailroom(
            line,
            broker,
            addresses,
            metrics,
            shard=held.shard,
            attendance=attendance,
            slots=slots,
            outdated=outdated,
        )
        outbox = OutboxSubscriber(
            line,
            addresses,
            Backlog(broker),
            metrics,
            accept=settings.accept,
            presence=mailroom,
            culprits=culprits,
            consumer=spec.durable,
            slots=slots,
            heard=answers.take,
        )
        consumer = BatchConsumer(
            broker,
            spec,
            outbox.handle,
            most=MOST_IN_BATCH,
            weigh=footprint,
            check=line.check,
            opened=outbox.opened,
            metrics=metrics,
        )
        return ShardParts(line, mailroom, outbox, consumer)

    return Shards(broker, instance, make, attendance, metrics)


def _component(settings: Settings, addresses: BridgeAddresses) -> Component:
    return Component(
        addresses,
        settings.component_secret.get_secret_value(),
        settings.xmpp_host,
        settings.xmpp_component_port,
        timeout=settings.xmpp_timeout,
    )


def _sender_limits(settings: Settings) -> dict[str, Throttle]:
    """Return the limits of SenderPace, by their names there."""
    return {
        "messages": Throttle(settings.messages_per_user, "user"),
        "receipts": Throttle(settings.receipts_per_user, "user"),
        "sizes": Throttle(settings.bytes_per_user, "user"),
        "deliveries": Throttle(settings.deliveries_per_user, "user"),
    }


def _certificate(app: FastAPI, where: str, end: Callable[[], Awaitable[float | None]]) -> Repeated:
    """Return what looks at the certificate that clients are shown there."""
    gauge = BridgeMetrics(app.state.metrics).certificate

    async def look() -> None:
        ends = await end()
        if ends is not None:
            gauge.labels(where).set(ends)

    return Repeated(f"certificate at {where}", look, CERTIFICATE_EVERY_S)


async def _gateways_end(settings: Settings) -> float | None:
    return None if settings.gateway_url is None else await end_at_gateway(settings.gateway_url)


def _logins(settings: Settings) -> SaslLogin:
    return SaslLogin(
        settings.xmpp_host,
        settings.xmpp_client_port,
        settings.xmpp_domain,
        ca_file=settings.xmpp_ca_file,
        at_once=settings.logins_at_once,
        timeout=settings.login_timeout,
    )


def _token_limits(settings: Settings) -> dict[str, Throttle]:
    """Return the limits of TokenDesk, by their names there."""
    return {
        "per_user": Throttle(settings.token_attempts_per_user, "user"),
        "failures_per_user": Throttle(settings.token_attempts_per_user, "user"),
        "failures_per_address": Throttle(settings.token_attempts_per_address, "address"),
        "per_session": Throttle(settings.token_attempts_per_user, "user"),
    }


def _token_desk(
    settings: Settings, broker: Broker, issuer: TokenIssuer, logins: SaslLogin, limits: Mapping[str, Throttle]
) -> TokenDesk:
    return TokenDesk(
        logins,
        broker,
        issuer,
        lifetime=settings.token_lifetime,
        failure_delay=settings.login_failure_delay,
        **limits,
    )

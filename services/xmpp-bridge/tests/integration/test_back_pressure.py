"""While JetStream does not keep up, the bridge reads no more from the XMPP server than it can hold."""

import asyncio
from datetime import timedelta
from typing import Any

from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN
from tlim_protocol.events import AcceptedMessage
from tlim_runtime.broker import PubAck
from tlim_runtime.metrics import Metrics
from tlim_runtime.throttle import Throttle
from tlim_runtime.tracing import Headers
from xmpp_bridge.component import Component
from xmpp_bridge.pace import SenderPace
from xmpp_bridge.service import MessageIntake
from xmpp_bridge.translate import Accept, BridgeAddresses

LIMIT = 5
MANY = 300


class SlowPublisher:
    """A JetStream that acknowledges nothing until it is told to go on."""

    def __init__(self) -> None:
        self.msg_ids: list[str] = []
        self._waiting: list[asyncio.Future[PubAck]] = []
        self._is_slow = True

    def publish_soon(self, subject: str, payload: bytes, *, headers: Headers) -> asyncio.Future[PubAck]:
        del subject, headers
        self.msg_ids.append(AcceptedMessage.from_bytes(payload).envelope.msg_id)
        future: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if not self._is_slow:
            self._answer()
        return future

    def go_on(self) -> None:
        self._is_slow = False
        self._answer()

    def _answer(self) -> None:
        for future in self._waiting:
            future.set_result(PubAck(stream="any", seq=1))
        self._waiting.clear()


async def test_the_component_stops_reading_at_the_bound_and_loses_nothing(
    world: Any, envelope: Any, eventually: Any
) -> None:
    publisher = SlowPublisher()
    addresses = BridgeAddresses(DOMAIN, COMPONENT)
    ports, secret = world.xmpp.ports, world.xmpp.credentials.component
    component = Component(addresses, secret, "127.0.0.1", ports.component, timeout=timedelta(seconds=10))
    unlimited = Throttle("999999999/second", "user")
    pace = SenderPace(messages=unlimited, receipts=unlimited, sizes=unlimited, deliveries=unlimited)
    intake = MessageIntake(
        addresses,
        publisher,
        component,
        Metrics(),
        pace=pace,
        in_flight_limit=LIMIT,
        accept=Accept.DIVERTED,
        is_deactivated=frozenset().__contains__,
        via="this bridge",
    )
    component.start(intake.take)
    try:
        await component.connected()
        alice, bob = await world.login("alice"), await world.login("bob")
        sent = [f"m{number}" for number in range(LIMIT + MANY)]
        for msg_id in sent[:LIMIT]:
            alice.send(envelope(msg_id))

        async def bound_is_reached() -> None:
            assert len(publisher.msg_ids) == LIMIT

        await eventually(bound_is_reached)
        for msg_id in sent[LIMIT:]:
            alice.send(envelope(msg_id))
        # The server handles a client's stanzas in order: when bob has the chat, all before it went to the component.
        alice.send_body("all sent", "bob", location=None)
        await bob.inbox.next()
        assert len(publisher.msg_ids) == LIMIT
        publisher.go_on()

        async def all_have_come() -> None:
            assert publisher.msg_ids == sent

        await eventually(all_have_come)
        await intake.drained()
    finally:
        await component.close()

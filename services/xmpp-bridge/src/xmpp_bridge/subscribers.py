"""Committed facts in, stanzas out: what the store says is delivered, and acknowledged once the XMPP server has it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from pydantic import ValidationError
from tlim_protocol.events import OutEvent, read_out_event
from tlim_runtime.consumer import DONE, Incoming, Poison, Verdict
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable

from xmpp_bridge.awaited import Awaited
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.delivered import DeliveredLately
from xmpp_bridge.translate import BridgeAddresses, write_event


class Deliverer(Protocol):
    """Sends stanzas and returns when the XMPP server has taken them over (component.Component)."""

    async def deliver(self, stanzas: Iterable[str]) -> None: ...


class OutboxSubscriber:
    """Turns a batch of out events into stanzas, in stream order, with one barrier behind all of them."""

    def __init__(
        self, component: Deliverer, addresses: BridgeAddresses, awaited: Awaited, backlog: Backlog, metrics: Metrics
    ) -> None:
        self._component = component
        self._addresses = addresses
        self._awaited = awaited
        self._backlog = backlog
        self._lately = DeliveredLately()
        self._sent = metrics.counter("tlim_bridge_stanzas_total", "Stanzas sent to the XMPP server")
        self._seconds = metrics.histogram("tlim_bridge_batch_seconds", "From a batch to the barrier's answer")

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Verdict]:
        """Deliver a batch; what is no out event is poison. Raises Unavailable when it must come again."""
        self._lately.begin(batch[0].stream_seq)
        read = [_read(incoming.data) for incoming in batch]
        events = [event for event in read if not isinstance(event, Poison)]
        for event in events:
            self._awaited.settle(event)
        with self._seconds.time():
            remaining = await self._backlog.without_recalled(events)
            self._lately.check()
            try:
                await self._component.deliver(self._stanzas(remaining))
            except Unavailable:
                self._backlog.fall_behind()
                raise
            self._lately.end()
        return [event if isinstance(event, Poison) else DONE for event in read]

    def connection_lost(self) -> int | None:
        """Return from where in the stream everything is to come again, what the server had taken over lately included.

        None: from where it is.
        """
        self._backlog.fall_behind()
        return self._lately.take_back()

    def _stanzas(self, events: Iterable[OutEvent]) -> Iterator[str]:
        """Write stanzas only when they are sent: a batch of messages to big groups is millions of them."""
        for event in events:
            for stanza in write_event(event, self._addresses):
                self._sent.inc()
                yield stanza


def _read(data: bytes) -> OutEvent | Poison:
    try:
        return read_out_event(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        return Poison(f"no out event: {problem['loc']} {problem['msg']}")

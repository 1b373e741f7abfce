"""Committed facts in, stanzas out: what the store says is delivered, and acknowledged once the XMPP server has it."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from pydantic import ValidationError
from tlim_protocol.events import read_out_event
from tlim_runtime.consumer import DONE, Incoming, Poison, Verdict
from tlim_runtime.metrics import Metrics

from xmpp_bridge.translate import Addresses, write_event


class Deliverer(Protocol):
    """Sends stanzas and returns when the XMPP server has taken them over (component.Component)."""

    async def deliver(self, stanzas: Iterable[str]) -> None: ...


class OutboxSubscriber:
    """Turns a batch of out events into stanzas, in stream order, with one barrier behind all of them."""

    def __init__(self, component: Deliverer, addresses: Addresses, metrics: Metrics) -> None:
        self._component = component
        self._addresses = addresses
        self._delivered = metrics.counter("tlim_bridge_stanzas_total", "Stanzas that the XMPP server took over")
        self._seconds = metrics.histogram("tlim_bridge_batch_seconds", "From a batch to the barrier's answer")

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Verdict]:
        """Deliver a batch; what is no out event is poison. Raises XmppUnavailable when it must come again."""
        stanzas: list[str] = []
        verdicts: list[Verdict] = []
        for incoming in batch:
            try:
                event = read_out_event(incoming.data)
            except ValidationError as error:
                problem = error.errors(include_url=False, include_input=False)[0]
                verdicts.append(Poison(f"no out event: {problem['loc']} {problem['msg']}"))
                continue
            stanzas.extend(write_event(event, self._addresses))
            verdicts.append(DONE)
        with self._seconds.time():
            await self._component.deliver(stanzas)
        self._delivered.inc(len(stanzas))
        return verdicts

"""Delivers what the store has committed, as stanzas. An event is acknowledged when the XMPP server has its stanzas."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from pydantic import ValidationError
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage, read_out_event
from tlim_runtime.consumer import DONE, Incoming, Poison, Verdict
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable

from xmpp_bridge.awaited import Awaited
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.component import ComponentLost
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.delivered import DeliveredLately
from xmpp_bridge.translate import Accept, BridgeAddresses, write_event


class Deliverer(Protocol):
    """Sends stanzas and returns when the XMPP server has taken them over (component.Component)."""

    async def deliver(self, stanzas: Iterable[str]) -> None: ...
    async def barrier(self) -> None: ...


class Presence(Protocol):
    """Who is present (mailroom.Mailroom)."""

    turn: asyncio.Lock

    @property
    def server_keeps(self) -> bool: ...
    async def settled(self) -> None: ...
    def is_due(self, user_id: str, seq: int) -> bool: ...
    def handed_over(self, seq: int) -> None: ...


class OutboxSubscriber:
    """Turns a batch of out events into stanzas, in stream order, with one barrier behind all of them.

    If the server keeps ending the connection, stanzas are sent one at a time, each with a barrier (culprits.py). A
    stanza that the server does not accept makes its message poison. Smaller stanzas of that message, and the other
    messages of the batch, are still delivered.
    """

    def __init__(
        self,
        component: Deliverer,
        addresses: BridgeAddresses,
        awaited: Awaited,
        backlog: Backlog,
        metrics: Metrics,
        *,
        accept: Accept,
        presence: Presence,
        heard: Callable[[OutEvent], None] = lambda _event: None,
    ) -> None:
        self._component = component
        self._addresses = addresses
        self._accept = accept
        self._presence = presence
        self._awaited = awaited
        self._backlog = backlog
        self._heard = heard
        self._lately = DeliveredLately()
        self._culprits = Culprits()
        self._sent = metrics.counter("tlim_bridge_stanzas_total", "Stanzas sent to the XMPP server")
        self._seconds = metrics.histogram("tlim_bridge_batch_seconds", "From a batch to the barrier's answer")

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Verdict]:
        """Deliver a batch. Data that is no out event is poison. Raises Unavailable when the batch must come again."""
        first, last = batch[0].stream_seq, batch[-1].stream_seq
        self._lately.begin(first)
        read = [_read(incoming.data) for incoming in batch]
        events = [event for event in read if not isinstance(event, Poison)]
        for event in events:
            self._awaited.settle(event)
            self._heard(event)
        good = [incoming for incoming, event in zip(batch, read, strict=True) if not isinstance(event, Poison)]
        poison = {one.stream_seq: it for one, it in zip(batch, read, strict=True) if isinstance(it, Poison)}
        await self._presence.settled()
        with self._seconds.time():
            async with self._presence.turn:
                remaining = await self._backlog.without_recalled(events, [one.received_at for one in good])
                self._lately.check()
                try:
                    await self._deliver(self._stanzas(zip(good, remaining, strict=True), poison))
                except Unavailable as error:
                    self._backlog.fall_behind()
                    if isinstance(error, ComponentLost):
                        self._culprits.note_loss(first, last)
                    raise
                self._lately.end()
        self._presence.handed_over(max((event.seq for event in events if isinstance(event, StoredMessage)), default=0))
        self._culprits.note_passed(last)
        return [poison.get(incoming.stream_seq, DONE) for incoming in batch]

    def connection_lost(self) -> int | None:
        """Return where in the stream delivery begins again, or None to go on from where it is.

        A server that keeps deliveries may have lost those of the last seconds. They are delivered again (delivered.py).
        """
        self._backlog.fall_behind()
        first = self._lately.take_back()
        return first if self._presence.server_keeps else None

    async def _deliver(self, stanzas: Iterator[tuple[Incoming, str]]) -> None:
        if not self._culprits.are_feared:
            await self._component.deliver(stanza for _, stanza in stanzas)
            return
        await self._component.barrier()  # the server is well: if it now ends the connection, the stanza is the cause
        for message, stanza in stanzas:
            self._lately.check()
            try:
                await self._component.deliver([stanza])
            except ComponentLost:
                self._culprits.suspect(message, stanza)
                raise

    def _stanzas(
        self, events: Iterable[tuple[Incoming, OutEvent]], poison: dict[int, Poison]
    ) -> Iterator[tuple[Incoming, str]]:
        """Yield the stanzas one by one as they are sent: a batch of messages to big groups can be millions of them.

        A stanza that ends the connection is left out. Its message is noted in `poison`, by its place in the stream.
        """
        is_kept = self._presence.server_keeps
        for message, whole in events:
            event = whole if is_kept else self._to_present(whole)
            for stanza in write_event(event, self._addresses, self._accept, is_kept=is_kept):
                if self._culprits.is_found(message, stanza):
                    size = len(stanza.encode())
                    poison[message.stream_seq] = Poison(
                        f"the XMPP server ends the connection at a stanza of {size} bytes"
                    )
                    continue
                self._sent.inc()
                yield message, stanza

    def _to_present(self, event: OutEvent) -> OutEvent:
        """Return the event for those of its recipients that are there. The others get it when they come."""
        if isinstance(event, RejectedMessage) or not event.recipients:
            return event
        present = [user_id for user_id in event.recipients if self._presence.is_due(user_id, event.seq)]
        return event.model_copy(update={"recipients": present})


def _read(data: bytes) -> OutEvent | Poison:
    try:
        return read_out_event(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        return Poison(f"no out event: {problem['loc']} {problem['msg']}")

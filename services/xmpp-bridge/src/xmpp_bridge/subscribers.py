"""Delivers what the store has committed, as stanzas. An event is acknowledged when the XMPP server has its stanzas."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeVar

from pydantic import ValidationError
from tlim_protocol.dead_letters import DeadCause
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage, read_out_event
from tlim_runtime.consumer import DONE, Incoming, Later, Poison, Verdict
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from tlim_runtime.reports import now_ms

from xmpp_bridge.backlog import Backlog
from xmpp_bridge.component import ComponentLost
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.delivered import DeliveredLately
from xmpp_bridge.lanes import Gaps, Load, SlowLane, Work, are_given_up, portion
from xmpp_bridge.metrics import BridgeMetrics
from xmpp_bridge.translate import (
    Accept,
    BridgeAddresses,
    write_answer,
    write_copy,
    write_deliveries,
    write_event,
)

E = TypeVar("E", bound=OutEvent)


class Deliverer(Protocol):
    """Sends stanzas and returns when the XMPP server has taken them over (fence.FencedLine)."""

    async def deliver(self, stanzas: Iterable[str]) -> None: ...
    async def barrier(self) -> None: ...


class Presence(Protocol):
    """Who is present (mailroom.Mailroom)."""

    turn: asyncio.Lock
    gaps: Gaps

    @property
    def server_keeps(self) -> bool: ...
    def is_due(self, user_id: str, seq: int) -> bool: ...
    async def noted(self, user_ids: Iterable[str]) -> None: ...
    def handed_over(self, seq: int) -> None: ...


class OutboxSubscriber:
    """Turns a batch of out events into stanzas, in stream order, with one barrier behind all of them.

    What is much to send takes the slow lane (lanes.py), and the batch does not wait for it. Its sender is answered with
    the batch. `slots` are the portions that may be on their way at the same time. All shards of a bridge share them.

    If the server keeps ending the connection, stanzas are sent one at a time, each with a barrier (culprits.py). A
    stanza that the server does not accept makes its message poison. Smaller stanzas of that message, and the other
    messages of the batch, are still delivered.
    """

    def __init__(
        self,
        component: Deliverer,
        addresses: BridgeAddresses,
        backlog: Backlog,
        metrics: Metrics,
        *,
        accept: Accept,
        presence: Presence,
        culprits: Culprits,
        consumer: str,
        slots: asyncio.Semaphore,
        heard: Callable[[OutEvent, str | None], None] = lambda _event, _traceparent: None,
    ) -> None:
        self._component = component
        self._addresses = addresses
        self._accept = accept
        self._presence = presence
        self._backlog = backlog
        self._heard = heard
        self._lately = DeliveredLately()
        self._culprits = culprits
        self._consumer = consumer
        self._lane = SlowLane(self._send_portion, presence.gaps, self._note_progress)
        self._slots = slots
        self._last = self._newest = 0  # of the batches since delivery began: the last place in the stream, and seq
        self._repeated = 0  # messages up to this place in the stream may have been delivered before
        self._metrics = BridgeMetrics(metrics)

    async def handle(self, batch: Sequence[Incoming]) -> Sequence[Verdict | Later]:
        """Deliver a batch. Data that is no out event is poison. Raises Unavailable when the batch must come again."""
        try:
            return await self._handle(batch)
        except BaseException:
            self._start_over("delivery starts anew")
            raise

    def opened(self, delivered: int) -> None:
        """Begin anew with what is not acknowledged. Messages up to `delivered` in the stream had been begun (Gaps)."""
        self._start_over("delivery starts anew")
        self._culprits.opened(self._consumer, delivered)
        self._presence.gaps.opened(delivered)
        self._repeated = delivered

    def connection_lost(self) -> int | None:
        """Return where in the stream delivery begins again, or None to go on from where it is.

        A server that keeps deliveries may have lost those of the last seconds. They are delivered again (delivered.py).
        """
        self._start_over("the XMPP connection was lost")
        self._backlog.fall_behind()
        first = self._lately.take_back()
        return first if self._presence.server_keeps else None

    async def emptied(self) -> None:
        """Return when everything is sent that waits in the slow lane now. Little more may come into it."""
        await self._lane.emptied()

    def end(self) -> None:
        """Leave what waits in the slow lane to the next bridge, but for what is begun."""
        self._lane.end()

    async def close(self) -> None:
        """Stop: the shard is closed, and nothing of it is sent any more."""
        await self._lane.close()
        self._culprits.closed(self._consumer)

    async def _handle(self, batch: Sequence[Incoming]) -> Sequence[Verdict | Later]:
        first, last, begun = batch[0].stream_seq, batch[-1].stream_seq, now_ms()
        self._lately.begin(first)
        poison: dict[int, Poison] = {}  # by place in the stream, like the next
        later: dict[int, Later] = {}
        events: list[tuple[Incoming, OutEvent]] = []
        for incoming in batch:
            event = _read(incoming.data)
            if isinstance(event, Poison):
                poison[incoming.stream_seq] = event
                continue
            events.append((incoming, event))
            self._heard(event, incoming.traceparent)
        await self._lane.room(sum(incoming.weight for incoming in batch))
        with self._metrics.batch_seconds.time():
            events = await self._without_recalled(events)  # whoever waits for the turn must not wait for message-store
            async with self._presence.turn:
                self._presence.gaps.check()
                self._lately.check()
                await self._deliver(self._at_once(events, later), poison, first, last)
                self._lately.end()
        self._metrics.delivered(events, self._consumer, begun, later)
        await self._noted(event for _, event in events)
        self._last = last
        self._newest = max([self._newest, *(event.seq for _, event in events if isinstance(event, StoredMessage))])
        self._note_progress()
        verdicts: dict[int, Verdict | Later] = {**later, **poison}
        return [verdicts.get(incoming.stream_seq, DONE) for incoming in batch]

    def _start_over(self, reason: str) -> None:
        self._lane.drop(Unavailable(reason))
        self._last = self._newest = 0

    def _note_progress(self) -> None:
        gaps = self._presence.gaps
        gaps.passed(self._last)
        self._culprits.note_passed(self._consumer, self._last if gaps.first is None else gaps.first - 1)
        self._presence.handed_over(gaps.bound(self._newest))

    async def _without_recalled(self, events: Sequence[tuple[Incoming, OutEvent]]) -> list[tuple[Incoming, OutEvent]]:
        messages = [message for message, _ in events]
        received = [message.received_at for message in messages]
        with self._metrics.in_hand(messages):
            remaining = await self._backlog.without_recalled([event for _, event in events], received)
        return list(zip(messages, remaining, strict=True))

    async def _deliver(
        self, stanzas: Iterator[tuple[Incoming, str]], poison: dict[int, Poison], first: int, last: int
    ) -> None:
        """Deliver stanzas of the messages from `first` to `last` in the stream; note in `poison` what is refused.

        They are made one by one as they are sent: a batch of messages to big groups can be millions of them.
        """
        accepted = self._accepted(stanzas, poison)
        try:
            if self._culprits.are_feared:
                async with self._culprits.alone:
                    await self._deliver_one_by_one(accepted)
            else:
                await self._component.deliver(stanza for _, stanza in accepted)
        except Unavailable as error:
            self._backlog.fall_behind()
            if isinstance(error, ComponentLost):
                self._culprits.note_loss(self._consumer, first, last)
            raise

    async def _deliver_one_by_one(self, stanzas: Iterator[tuple[Incoming, str]]) -> None:
        await self._component.barrier()  # the server is well: if it now ends the connection, the stanza is the cause
        for message, stanza in stanzas:
            self._lately.check()
            try:
                await self._component.deliver([stanza])
            except ComponentLost:
                self._culprits.suspect(self._consumer, message, stanza)
                raise

    def _accepted(
        self, stanzas: Iterator[tuple[Incoming, str]], poison: dict[int, Poison]
    ) -> Iterator[tuple[Incoming, str]]:
        for message, stanza in stanzas:
            if self._culprits.is_found(message, stanza):
                size = len(stanza.encode())
                reason = f"the XMPP server ends the connection at a stanza of {size} bytes"
                poison[message.stream_seq] = Poison(reason, DeadCause.UNDELIVERABLE)
                continue
            self._metrics.stanzas.inc()
            yield message, stanza

    def _at_once(
        self, events: Sequence[tuple[Incoming, OutEvent]], later: dict[int, Later]
    ) -> Iterator[tuple[Incoming, str]]:
        is_kept = self._presence.server_keeps
        load = Load(() if is_kept else events)
        for message, event in events:
            if isinstance(event, StoredMessage) and not is_kept and self._lane.takes(event, load):
                verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
                later[message.stream_seq] = Later(verdict)
                self._lane.add(Work(message, event, event.envelope.conversation_id, verdict, now_ms()))
                stanzas = write_answer(event, self._addresses)
            else:
                present = event if is_kept else self._to_present(event)
                is_late = self._is_repeated(message)
                stanzas = write_event(present, self._addresses, self._accept, is_kept=is_kept, is_late=is_late)
            for stanza in stanzas:
                yield message, stanza

    async def _send_portion(self, works: Sequence[Work]) -> list[Verdict]:
        poison: dict[int, Poison] = {}
        await self._begin([work for work in works if not work.is_begun])
        async with self._slots, self._presence.turn:  # nothing in here may wait for message-store
            self._presence.gaps.check()
            stanzas = [] if are_given_up(works) else list(portion(works))
            if stanzas:
                places = [work.message.stream_seq for work in works]
                sent = ((work.message, stanza) for work, stanza in stanzas)
                await self._deliver(sent, poison, min(places), max(places))
        for work in works:
            work.poison = poison.get(work.message.stream_seq, work.poison)
        done = [work for work in works if work.is_sent]
        if done:
            events = [(work.message, work.event) for work in done]
            self._metrics.delivered(events, self._consumer, min(work.begun for work in done))
            await self._noted(event for _, event in events)
        return [work.poison or DONE for work in done]

    async def _begin(self, works: Sequence[Work]) -> None:
        """Make ready what has its first turn now."""
        remaining = await self._without_recalled([(work.message, work.event) for work in works])
        for work, (message, event) in zip(works, remaining, strict=True):
            work.stanzas = self._to_many(event, is_late=self._is_repeated(message))

    async def _noted(self, events: Iterable[OutEvent]) -> None:
        """Return when it is noted of whom these reached nobody, or were left out for them.

        The bridge may die then. The next one knows from the notes alone that such a person lacks something.
        """
        told = (event for event in events if isinstance(event, StoredMessage))
        await self._presence.noted(chain.from_iterable(event.recipients for event in told))

    def _to_many(self, event: OutEvent, *, is_late: bool) -> Iterator[str]:
        """Yield a message in the slow lane. Whether somebody is there is looked up when it is their turn."""
        if isinstance(event, RejectedMessage):
            return
        yield from write_copy(event, self._addresses, self._accept)
        due = (user_id for user_id in event.recipients if self._presence.is_due(user_id, event.seq))
        yield from write_deliveries(event, self._addresses, to=due, is_kept=False, is_late=is_late)

    def _is_repeated(self, message: Incoming) -> bool:
        """Whether it may be a repetition: a device that came after the first delivery can have newer ones already."""
        return message.stream_seq <= self._repeated

    def _to_present(self, event: E) -> E:
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

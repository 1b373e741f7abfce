"""The slow lane: what goes to many people is sent in portions, and everybody else's messages overtake it.

    message to many ──► its conversation ──┐
    next of that conversation ──► behind it ├──► a portion of one, a portion of the next, …
    message to many ──► its conversation ──┘

A conversation is in the slow lane as long as one of its messages is. Its next messages queue behind, so each
conversation stays in order. Messages of other conversations are newer, and are sent before. So a mailbox must not move
past the oldest message here (`Gaps`).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from math import inf

from tlim_protocol.events import StoredMessage
from tlim_runtime.background import Tasks
from tlim_runtime.consumer import Incoming, Poison, Verdict
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.tracing import trace_of

logger = get_logger(__name__)

MANY = 50
"""Stanzas in a portion. A message to more people of a shard than this takes the slow lane."""

PORTIONS_AT_ONCE = 2
"""Portions of a bridge that are on their way, whatever their shards. All that is sent next is behind them: on two busy
cores the XMPP server needs 70 ms for these 100 stanzas, and for one of each of the eight shards it needs 300 ms. With
one portion it would wait for us after each; with two a message to 10,000 people takes no longer than with eight."""

PORTION_BYTES = 256 * 1024
"""A portion of large messages has fewer stanzas."""

MOST_WAITING = 500
"""Messages in the slow lane. With more of them, all deliveries of the shard wait."""

MOST_BYTES = 64 * 1024 * 1024
"""The same in bytes: of the events, as they came."""


class Gaps:
    """Knows how far the deliveries of a shard have come without a gap. The slow lane, and a new start, leave gaps.

    A device may have confirmed something newer than what is missing. A mailbox that moved there would skip a message.
    """

    def __init__(self) -> None:
        self._seqs: dict[int, int] = {}  # in the slow lane: the place in the stream, and the seq
        self._behind_until: float = inf  # in the stream: so far, messages may have been overtaken, and come again

    @property
    def first(self) -> int | None:
        """The place in the stream of the oldest message in the slow lane."""
        return min(self._seqs, default=None)

    def add(self, message: Incoming, seq: int) -> None:
        """Note that a message waits in the slow lane."""
        self._seqs[message.stream_seq] = seq

    def remove(self, message: Incoming) -> None:
        """Note that it is sent."""
        del self._seqs[message.stream_seq]

    def lose(self) -> None:
        """Note that delivery will begin anew: what waits here is forgotten, and comes again."""
        self._seqs.clear()
        self._behind_until = inf

    def opened(self, delivered: int) -> None:
        """Note that delivery begins anew. Messages up to `delivered` in the stream had been begun; 0: none is left."""
        self._behind_until = delivered

    def passed(self, last: int) -> None:
        """Note that the messages up to `last` in the stream are sent, but for those in the slow lane."""
        if last >= self._behind_until:
            self._behind_until = 0

    def check(self) -> None:
        """Raise Unavailable if what waited here is forgotten: until it comes again, what is newer would overtake it."""
        if self._behind_until == inf:
            raise Unavailable("delivery starts anew")

    def bound(self, seq: int) -> int:
        """Return the highest seq up to `seq` behind which nothing waits; 0 if nobody knows."""
        return 0 if self._behind_until else min([seq, *(one - 1 for one in self._seqs.values())])


@dataclass(slots=True)
class Work:
    """A message in the lane since `begun` (epoch ms). `stanzas` are those that are left, None before its first turn."""

    message: Incoming
    event: StoredMessage
    verdict: asyncio.Future[Verdict]
    begun: int
    stanzas: Iterator[str] | None = None
    poison: dict[int, Poison] = field(default_factory=dict)  # by its place in the stream


def portion(stanzas: Iterator[str]) -> Iterator[str]:
    """Yield the next portion. Each stanza is made when it is sent: for whoever is there at that moment."""
    size = 0
    for stanza in islice(stanzas, MANY):
        yield stanza
        size += len(stanza)
        if size >= PORTION_BYTES:
            return


class SlowLane:
    """Sends portions in turn, one of each conversation.

    `send` sends the next portion of a message, and returns when the XMPP server has taken it over: with the verdict if
    it was the last one. If a portion fails, so does everything here: the messages come again, in their order. The same
    happens when the consumer gives a message up, because it then delivers anew from there. `slots` are the portions
    that may be on their way at the same time. All shards of a bridge share them, and take turns.
    """

    def __init__(
        self,
        send: Callable[[Work], Awaitable[Verdict | None]],
        gaps: Gaps,
        finished: Callable[[], None],
        slots: asyncio.Semaphore,
    ) -> None:
        self._send = send
        self._slots = slots
        self._gaps = gaps
        self._finished = finished
        self._queues: dict[str, deque[Work]] = {}  # by conversation, the one whose turn it is first
        self._waiting = self._bytes = 0
        self._room = asyncio.Event()
        self._is_running = False
        self._tasks = Tasks()

    def takes(self, event: StoredMessage) -> bool:
        """Whether the message goes to many people, or has to wait for one of its conversation that does."""
        return len(event.recipients) > MANY or event.envelope.conversation_id in self._queues

    async def room(self) -> None:
        """Return when there is room for one more message."""
        while self._waiting >= MOST_WAITING or self._bytes >= MOST_BYTES:
            self._room.clear()
            await self._room.wait()

    def add(self, work: Work) -> None:
        """Have the message sent when its turn comes; `work.verdict` tells what became of it."""
        self._queues.setdefault(work.event.envelope.conversation_id, deque()).append(work)
        self._gaps.add(work.message, work.event.seq)
        self._waiting += 1
        self._bytes += len(work.message.data)
        if not self._is_running:
            self._is_running = True
            self._tasks.start(self._run(), "slow lane")

    def drop(self, reason: Unavailable) -> None:
        """Give up everything that waits, for `reason`."""
        queues, self._queues = self._queues, {}
        self._gaps.lose()
        self._waiting = self._bytes = 0
        self._room.set()
        for work in chain.from_iterable(queues.values()):
            if not work.verdict.done():
                work.verdict.set_exception(reason)
                work.verdict.exception()  # read it: the consumer may not know of this message yet

    async def _run(self) -> None:
        try:
            while self._queues:
                await self._next()
        except Unavailable as error:
            self.drop(error)
        except Exception as error:
            logger.exception("the slow lane failed", **self._in_turn())
            self.drop(Unavailable(f"{type(error).__name__}: {error}"))
        finally:
            self._is_running = False

    def _in_turn(self) -> dict[str, str]:
        """Return what the log says of the message whose turn it is."""
        works = next(iter(self._queues.values()), None)
        if not works:
            return {}
        return {"msg_id": works[0].event.envelope.msg_id, **trace_of(works[0].message.traceparent)}

    async def _next(self) -> None:
        """Send one portion of the conversation whose turn it is; then it is the turn of all others first."""
        conversation, works = next(iter(self._queues.items()))
        work = works[0]
        try:
            async with self._slots:
                verdict = None if work.verdict.done() else await self._send(work)
        except Exception:
            if self._queues.get(conversation) is works:
                raise
            return  # dropped meanwhile, and delivery may have begun anew
        if self._queues.get(conversation) is not works:
            return  # dropped meanwhile
        if work.verdict.done():
            raise Unavailable("delivery starts anew")
        del self._queues[conversation]
        if verdict is not None:
            works.popleft()
            self._waiting -= 1
            self._bytes -= len(work.message.data)
            self._room.set()
            self._gaps.remove(work.message)
            work.verdict.set_result(verdict)
            self._finished()
        if works:
            self._queues[conversation] = works

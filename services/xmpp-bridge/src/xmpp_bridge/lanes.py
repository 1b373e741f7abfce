"""The slow lane: what is sent to many is sent in portions, and everybody else's messages overtake it.

    message to many ──► its conversation ──┐
    next of that conversation ──► behind it ├──► a portion of one, a portion of the next, …
    message to many ──► its conversation ──┘

One message may go to many people, or a conversation may have many messages at once: both is much to send. A
conversation is in the slow lane as long as one of its messages is. Its next messages queue behind, so each conversation
stays in order. Messages of other conversations are newer, and are sent before. So a mailbox must not move past the
oldest message here (`Gaps`).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

from tlim_protocol.events import StoredMessage
from tlim_runtime.background import Tasks
from tlim_runtime.consumer import Incoming, Poison, Verdict
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.tracing import trace_of

logger = get_logger(__name__)

FEW = 12
"""Deliveries of a conversation that a batch sends at once. With more of them, its messages take the slow lane. All
eight shards together send no more of a conversation than two portions."""

MANY = 50
"""Stanzas in a portion."""

PORTIONS_AT_ONCE = 2
"""Portions of a bridge that are on their way, whatever their shards. All that is sent next is behind them: on two busy
cores the XMPP server needs 70 ms for these 100 stanzas, and for one of each of the eight shards it needs 300 ms. With
one portion it would wait for us after each; with two a message to 10,000 people takes no longer than with eight."""

PORTION_BYTES = 256 * 1024
"""A portion of large messages has fewer stanzas."""

MOST_WAITING = 3_000
"""Messages in the slow lane: as many as one person may write in a minute. With more of them, all deliveries of the
shard wait. Unacknowledged messages are more than this (tlim_protocol.streams)."""

MOST_BYTES = 32 * 1024 * 1024
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
    conversation: str
    verdict: asyncio.Future[Verdict]
    begun: int
    stanzas: Iterator[str] | None = None
    is_sent: bool = False
    poison: Poison | None = None

    @property
    def most(self) -> int:
        """How many deliveries it is, if all recipients are there."""
        return max(len(self.event.recipients), 1)


def next_in_turn(works: Iterable[Work]) -> list[Work]:
    """Return the first messages of these that are one portion together, or the first one if it is more than that."""
    together = 0
    taken: list[Work] = []
    for work in works:
        together += work.most
        if taken and together > MANY:
            break
        taken.append(work)
    return taken


def portion(works: Iterable[Work]) -> Iterator[tuple[Work, str]]:
    """Yield the next portion. Each stanza is made when it is sent: for whoever is there at that moment."""
    count = size = 0
    for work in works:
        for stanza in work.stanzas or ():
            yield work, stanza
            count, size = count + 1, size + len(stanza)
            if count >= MANY or size >= PORTION_BYTES:
                return
        work.is_sent = True


def are_given_up(works: Iterable[Work]) -> bool:
    """Whether the consumer waits for one of these no more: it delivers anew from there."""
    return any(work.verdict.done() for work in works)


class SlowLane:
    """Sends portions in turn, one of each conversation; conversations that have little share one.

    `send` sends a portion of messages, and returns when the XMPP server has taken it over: with the verdicts of those
    that are sent, the first ones. If a portion fails, so does everything here: the messages come again, in their order.
    The same happens when the consumer gives a message up, because it then delivers anew from there. `slots` are the
    portions that may be on their way at the same time. All shards of a bridge share them, and take turns.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Work]], Awaitable[Sequence[Verdict]]],
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

    def takes(self, conversation: str, deliveries: int) -> bool:
        """Whether a conversation with so many deliveries in a batch has too many, or has to wait for messages here."""
        return deliveries > FEW or conversation in self._queues

    async def room(self) -> None:
        """Return when there is room for one more message."""
        while self._waiting >= MOST_WAITING or self._bytes >= MOST_BYTES:
            self._room.clear()
            await self._room.wait()

    def add(self, work: Work) -> None:
        """Have the message sent when its turn comes; `work.verdict` tells what became of it."""
        self._queues.setdefault(work.conversation, deque()).append(work)
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
        """Send one portion of the conversations whose turn it is; then it is the turn of all others first."""
        queues = self._queues
        works = next_in_turn(chain.from_iterable(queues.values()))
        try:
            async with self._slots:
                verdicts = [] if are_given_up(works) else await self._send(works)
        except Exception:
            if self._queues is queues:
                raise
            return  # dropped meanwhile, and delivery may have begun anew
        if self._queues is not queues:
            return  # dropped meanwhile
        if are_given_up(works):
            raise Unavailable("delivery starts anew")
        for work, verdict in zip(works, verdicts, strict=False):
            self._finish(work, verdict)
        for conversation in dict.fromkeys(work.conversation for work in works[: len(verdicts) + 1]):
            if queue := queues.pop(conversation):
                queues[conversation] = queue
        if verdicts:
            self._room.set()
            self._finished()

    def _finish(self, work: Work, verdict: Verdict) -> None:
        self._queues[work.conversation].popleft()
        self._waiting -= 1
        self._bytes -= len(work.message.data)
        self._gaps.remove(work.message)
        work.verdict.set_result(verdict)

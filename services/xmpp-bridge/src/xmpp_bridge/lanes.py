"""The slow lane: much to send is sent in portions, and everybody else's messages overtake it.

    much to send ──► its conversation ──────────┐
    next of that conversation ──► behind it      ├──► a portion of one sender, a portion of the next, …
    much to send ──► its conversation ──────────┘

A message to many people is much to send. So are many messages at once in one conversation, or by one sender, and large
ones. A conversation is in the slow lane as long as one of its messages is. Its next messages queue behind, so each
conversation stays in order. Messages of other conversations are newer, and are sent before. So a mailbox must not move
past the oldest message here (`Gaps`).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from math import inf

from tlim_protocol.events import OutEvent, StoredMessage
from tlim_runtime.background import Tasks
from tlim_runtime.consumer import Incoming, Poison, Verdict
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import waiting
from tlim_runtime.tracing import trace_of

logger = get_logger(__name__)

FEW = 12
"""Deliveries of a conversation, or of a sender, that a batch of a shard sends at once. With more of them they take the
slow lane. The batches of all eight shards together have no more of one sender than two portions."""

MANY = 50
"""Stanzas in a portion."""

PORTIONS_AT_ONCE = 2
"""Portions of a bridge that are on their way, whatever their shards. All that is sent next is behind them: on two busy
cores the XMPP server needs 70 ms for these 100 stanzas, and for one of each of the eight shards it needs 300 ms. With
one portion it would wait for us after each; with two a message to 10,000 people takes no longer than with eight. A page
of what somebody has missed counts as one."""

PORTION_BYTES = 256 * 1024
"""A portion of large messages has fewer stanzas."""


def weight(size: int) -> int:
    """Return as how many deliveries one of `size` bytes counts: large ones take as much of a portion as several."""
    return 1 + size * MANY // PORTION_BYTES


MOST_WAITING = 3_000
"""Messages in the slow lane: as many as one person may write in a minute. With more of them, all deliveries of the
shard wait. Unacknowledged messages are more than this (tlim_protocol.streams)."""

MOST_BYTES = 16 * 1024 * 1024
"""The same in bytes of memory (footprint.py): as many as MOST_WAITING small messages take. There are eight shards."""

LITTLE = 10 * MANY
"""Deliveries that may come into the lane while it is being emptied. Otherwise it never would be, under load."""


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
    """A message in the lane since `begun` (epoch ms). `stanzas` are those that are left, None before its first turn.

    It is late if the lane was being emptied already.
    """

    message: Incoming
    event: StoredMessage
    conversation: str
    verdict: asyncio.Future[Verdict]
    begun: int
    stanzas: Iterator[str] | None = None
    is_late: bool = False
    is_sent: bool = False
    poison: Poison | None = None

    @property
    def is_begun(self) -> bool:
        """Whether it has had a turn."""
        return self.stanzas is not None

    @property
    def sender(self) -> str:
        """Who caused it."""
        return self.event.envelope.msg_from

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


class Load:
    """How many deliveries a batch has of each conversation, and by each sender."""

    def __init__(self, batch: Iterable[tuple[Incoming, OutEvent]]) -> None:
        self._conversations, self._senders = Counter[str](), Counter[str]()
        for message, event in batch:
            if isinstance(event, StoredMessage):
                deliveries = len(event.recipients) * weight(len(message.data))
                self._conversations[event.envelope.conversation_id] += deliveries
                self._senders[event.envelope.msg_from] += deliveries

    def of(self, event: StoredMessage) -> int:
        """Return what the conversation of an event has, or its sender if that is more."""
        envelope = event.envelope
        return max(self._conversations[envelope.conversation_id], self._senders[envelope.msg_from])


class Queues:
    """What waits, by conversation, in the order of the turns: of the senders, and of the conversations of each.

    A conversation has its turn with the sender of its first message. So whoever writes to a thousand groups waits no
    less, and makes nobody wait longer, than whoever writes to one.
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[Work]] = {}  # by conversation
        self._turns: dict[str, dict[str, deque[Work]]] = {}  # the same by sender: whose turn it is comes first

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._queues)

    def __contains__(self, conversation: str) -> bool:
        """Whether a message of the conversation waits."""
        return conversation in self._queues

    def __iter__(self) -> Iterator[Work]:
        """Yield all messages as if nothing was added: each conversation's in their order."""
        for conversations in self._turns.values():
            yield from chain.from_iterable(conversations.values())

    def left_to_finish(self) -> Iterator[Work]:
        """Yield what is begun and not given up: of each conversation up to the first that is not."""
        for conversations in self._turns.values():
            for queue in conversations.values():
                yield from takewhile(lambda work: work.is_begun and not work.verdict.done(), queue)

    def add(self, work: Work) -> None:
        """Add a message behind all others of its conversation."""
        queue = self._queues.get(work.conversation)
        if queue is None:
            queue = self._queues[work.conversation] = deque()
            self._turns.setdefault(work.sender, {})[work.conversation] = queue
        queue.append(work)

    def had_their_turn(self, works: Sequence[Work], done: int) -> None:
        """Remove the first `done` of these, which are the first of all. Then it is the turn of everybody else first."""
        firsts = {work.conversation: work.sender for work in reversed(works)}
        for work in works[:done]:
            self._queues[work.conversation].popleft()
        for conversation, sender in reversed(firsts.items()):
            conversations = self._turns.pop(sender)
            queue = conversations.pop(conversation)
            if conversations:
                self._turns[sender] = conversations
            if queue:
                self._turns.setdefault(queue[0].sender, {})[conversation] = queue
            else:
                del self._queues[conversation]


class SlowLane:
    """Sends portions in turn, one of each sender; those that have little share one.

    `send` sends a portion of messages, and returns when the XMPP server has taken it over: with the verdicts of those
    that are sent, the first ones. If a portion fails, so does everything here: the messages come again, in their order.
    The same happens when the consumer gives a message up, because it then delivers anew from there.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Work]], Awaitable[Sequence[Verdict]]],
        gaps: Gaps,
        finished: Callable[[], None],
    ) -> None:
        self._send = send
        self._gaps = gaps
        self._finished = finished
        self._queues = Queues()
        self._waiting = self._bytes = 0
        self._late = 0  # deliveries
        self._room = asyncio.Event()
        self._is_running = self._is_being_emptied = self._is_ending = False
        self._tasks = Tasks()

    def takes(self, event: StoredMessage, load: Load) -> bool:
        """Whether a message of a batch with this load takes the lane."""
        return event.envelope.conversation_id in self._queues or load.of(event) > FEW

    async def room(self, weight: int) -> None:
        """Return when there is room for one more batch, or for a batch that is larger than that when nothing waits."""
        while not self._is_ending and self._is_full(weight):
            self._room.clear()
            with waiting():  # for the lane, however long that takes
                await self._room.wait()

    def _is_full(self, weight: int) -> bool:
        is_too_much = self._waiting > 0 and self._bytes + weight > MOST_BYTES
        return is_too_much or self._waiting >= MOST_WAITING or self._late >= LITTLE

    async def emptied(self) -> None:
        """Return when everything is sent, or given up, that waits now. Little more is let in from now on."""
        self._is_being_emptied = True
        verdicts = [work.verdict for work in self._queues]
        if verdicts:
            await asyncio.wait(verdicts)

    def add(self, work: Work) -> None:
        """Have the message sent when its turn comes; `work.verdict` tells what became of it."""
        self._queues.add(work)
        self._gaps.add(work.message, work.event.seq)
        if self._is_ending:
            work.verdict.cancel()  # it stays in the queue, so that nothing of its conversation overtakes it
            return
        self._waiting += 1
        self._bytes += work.message.weight
        if self._is_being_emptied:
            work.is_late = True
            self._late += work.most
        if not self._is_running:
            self._is_running = True
            self._tasks.start(self._run(), "slow lane")

    def drop(self, reason: Unavailable) -> None:
        """Give up everything that waits, for `reason`."""
        works, self._queues = self._queues, Queues()
        self._gaps.lose()
        self._waiting = self._bytes = self._late = 0
        self._room.set()
        for work in works:
            if not work.verdict.done():
                work.verdict.set_exception(reason)
                work.verdict.exception()  # read it: the consumer may not know of this message yet

    def end(self) -> None:
        """Finish what is begun, and cancel the rest. It comes again, and what has overtaken it as well."""
        self._is_ending = True
        self._room.set()
        for work in self._queues:
            if not work.is_begun:
                work.verdict.cancel()

    async def close(self) -> None:
        """End the portion in hand: a message of it may wait for a note that nobody writes any more."""
        await self._tasks.close()

    async def _run(self) -> None:
        try:
            while works := self._in_turn():
                await self._next(works)
        except Unavailable as error:
            self.drop(error)
        except Exception as error:
            logger.exception("the slow lane failed", **self._named())
            self.drop(Unavailable(f"{type(error).__name__}: {error}"))
        finally:
            self._is_running = False

    def _in_turn(self) -> list[Work]:
        """Return the messages whose turn it is."""
        if not self._is_ending:
            return next_in_turn(self._queues)
        return next_in_turn(self._queues.left_to_finish())

    def _named(self) -> dict[str, str]:
        """Return what the log says of the message whose turn it is."""
        work = next(iter(self._queues), None)
        return {} if work is None else {"msg_id": work.event.envelope.msg_id, **trace_of(work.message.traceparent)}

    async def _next(self, works: Sequence[Work]) -> None:
        """Send one portion of these, whose turn it is; then it is the turn of all others first."""
        queues = self._queues
        try:
            verdicts = [] if are_given_up(works) else await self._send(works)
        except Exception:
            if self._queues is queues:
                raise
            return  # dropped meanwhile, and delivery may have begun anew
        if self._queues is not queues:
            return  # dropped meanwhile
        if are_given_up(works) and self._is_ending:
            return  # what is left of them has its turn once more
        if are_given_up(works):
            raise Unavailable("delivery starts anew")
        queues.had_their_turn(works[: len(verdicts) + 1], len(verdicts))
        for work, verdict in zip(works, verdicts, strict=False):
            self._finish(work, verdict)
        if verdicts:
            self._room.set()
            self._finished()

    def _finish(self, work: Work, verdict: Verdict) -> None:
        self._waiting -= 1
        self._late -= work.most if work.is_late else 0
        self._bytes -= work.message.weight
        self._gaps.remove(work.message)
        work.verdict.set_result(verdict)

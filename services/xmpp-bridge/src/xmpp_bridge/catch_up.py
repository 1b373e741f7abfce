"""Sends people what they have missed, out of the log, before they get anything newer."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import NamedTuple, Protocol

from tlim_protocol.events import StoredMessage
from tlim_protocol.mailboxes import MissedAnswer, MissedQuestion
from tlim_runtime.background import Background, cancellable
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import NoAnswerInTime, Unavailable
from tlim_runtime.pulse import held, waiting
from tlim_runtime.throttle import Throttle

from xmpp_bridge.component import ComponentDown
from xmpp_bridge.lanes import Gaps
from xmpp_bridge.mailbox import MISSED_WITHIN_S, Notes, Store, ask_missed
from xmpp_bridge.metrics import BridgeMetrics
from xmpp_bridge.roll import Attendee, Roll
from xmpp_bridge.translate import BridgeAddresses, write_caught_up, write_deliveries

logger = get_logger(__name__)

AT_ONCE = 16
"""People of one shard that catch up at the same time. Their pages take turns: whoever has missed little does not wait
for all that others have missed."""

PAGES_AT_ONCE = 2
"""Pages of one shard that are asked for and sent at the same time. When a server has been restarted, everybody comes at
once, and message-store answers a few questions at a time, however many bridges there are."""

PER_PERSON = "30/minute"
"""A device may come and go all the time. From here on its person waits."""

PAGE = 100
"""Messages that are asked for at a time, and sent without a break. Live deliveries take their turn between pages."""

PAGES_BESIDE = 5
"""Pages at the end that may be out of date when they come. After that live deliveries wait for one page."""

ALONE_S = 0.25
"""How long live deliveries wait for the store then. A first page comes within 50 ms of the login (docs/performance.md).
If the store hangs, or everybody asks it, the catch-up goes on beside live deliveries."""

LARGEST_STANZA = 8 * 1024 * 1024
"""The XMPP server ends the connection at a larger one (deploy/). It is left out here, and is in sync."""

_MOST_BYTES = 4  # of a character in UTF-8

RETRY_S = 1.0
"""The pause after a question that the store did not answer."""

_NOBODY = ""

FAILED_S = 60.0
"""The pause after a fault in what one person has missed. Nobody else has to do with it."""


class Line(Protocol):
    """Where stanzas go (component.Component)."""

    def send(self, stanzas: str) -> None: ...
    async def deliver(self, stanzas: Iterable[str]) -> None: ...
    async def barrier(self) -> None: ...


class _Place(NamedTuple):
    """Since when a person is in the queue, or will be. The timer cannot tell: that of uvloop does not know."""

    due: float
    timer: asyncio.Handle


class CatchUps:
    """Catches people up, in the order in which they came. Up to AT_ONCE of them take turns, and each turn is a page.

    A page is read, sent and taken over by the server before the next one is read. Live deliveries go on meanwhile, and
    skip the person (roll.py). With the last page the person becomes live: in that moment nothing was skipped that the
    page does not have. `turn` keeps live deliveries away, in case that moment does not come by itself. Pages share the
    `slots` of a bridge's portions (lanes.py): when everybody comes at once, live deliveries do not wait behind them.
    """

    def __init__(
        self,
        store: Store,
        line: Line,
        *,
        notes: Notes,
        turn: asyncio.Lock,
        gaps: Gaps,
        slots: asyncio.Semaphore,
        addresses: BridgeAddresses,
        metrics: Metrics,
    ) -> None:
        self.roll = Roll(self.begin, notes.add, gaps.bound)
        self._store = store
        self._line = line
        self._notes = notes
        self._addresses = addresses
        self._turn = turn
        self._slots = slots
        self._pages = asyncio.Semaphore(PAGES_AT_ONCE)
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._places: dict[str, _Place] = {}  # by person
        self._pace = Throttle(PER_PERSON, "user")
        self._reason = ""
        self._failed: set[str] = set()  # whose last try did not get an answer
        self._is_finishing = False
        self.workers = [Background(f"catch-up {number}", self._work) for number in range(1, AT_ONCE + 1)]
        self._sent = BridgeMetrics(metrics).missed

    @property
    def waiting(self) -> int:
        """How many people wait for the beginning of their catch-up, or of the next try."""
        return len(self._places)

    def begin(self, user_id: str, pause_s: float = 0) -> None:
        """Catch the person up as soon as it is their turn, but not before the pause is over.

        Each person waits at one place only. So a device that comes and goes all the time makes nobody else wait.
        """
        loop = asyncio.get_running_loop()
        due, place = loop.time() + pause_s, self._places.get(user_id)
        if place is not None and place.due <= due:
            return
        if place is not None:
            place.timer.cancel()
        try:
            self._pace.hit(user_id)
        except TooManyRequests as refusal:
            due = max(due, loop.time() + refusal.retry_after)
        self._places[user_id] = _Place(due, loop.call_at(due, self._queue.put_nowait, user_id))

    async def ping(self) -> None:
        """Raise Unavailable while the store does not say what people have missed.

        The next answer ends that. So does the departure of all whom it failed: nobody may come for hours.
        """
        for worker in self.workers:
            await worker.ping()
        if any(self.roll.catching_up(user_id) for user_id in self._failed):
            raise Unavailable(self._reason)

    async def finish(self) -> None:
        """Begin no other catch-up, and return when those that have begun are over."""
        self._is_finishing = True
        for _ in self.workers:
            self._queue.put_nowait(_NOBODY)
        for worker in self.workers:
            await worker.join()

    async def _work(self) -> None:
        while (user_id := await self._next()) and not self._is_finishing:
            await cancellable(self._serve(user_id))

    async def _next(self) -> str:
        with waiting():
            user_id = await self._queue.get()
        self._places.pop(user_id, None)
        return user_id

    async def _serve(self, user_id: str) -> None:
        person = self.roll.catching_up(user_id)
        if person is None or person.is_served:
            return
        person.is_served = True
        try:
            await self._catch_up(user_id, person)
            self._failed.clear()
        except ComponentDown:
            return  # with the next connection everything begins again
        except Unavailable as error:
            self._reason = f"what people have missed: {error}"
            self._failed.add(user_id)
            person.is_served = person.is_live = False  # if the mark at its end is not sent, it is not over
            self.begin(user_id, RETRY_S)
        except Exception:
            logger.exception("a catch-up failed", user_id=user_id)
            person.is_served = person.is_live = False
            self.begin(user_id, FAILED_S)

    async def _catch_up(self, user_id: str, person: Attendee) -> None:
        await self._notes.written()
        question = MissedQuestion(user_id=user_id, limit=PAGE)
        is_cut, ends = False, 0
        while True:
            is_alone = ends >= PAGES_BESIDE
            # In this order, or all wait in a circle: a page waits for a slot, and a portion with a slot for the turn.
            async with self._turn_of_a_page(is_alone=is_alone):
                if not self.roll.is_waiting(user_id, person):  # they may have gone while others had their turns
                    break
                try:
                    page = await self._send_page(user_id, person, question, is_alone=is_alone)
                except NoAnswerInTime:
                    if not is_alone:
                        raise
                    ends = 0
                    continue
                is_cut = is_cut or page.is_cut or not page.receipts
                if not page.more and self.roll.go_live(user_id, person, page.up_to):
                    self._line.send(write_caught_up(user_id, page.up_to, self._addresses, is_cut=is_cut))
                    break
            ends += not page.more
            after = page.next if page.more else page.up_to
            question = MissedQuestion(user_id=user_id, after=after, limit=PAGE, receipts=page.receipts)
        await self._line.barrier()
        self.roll.note_live(user_id, person)

    @asynccontextmanager
    async def _turn_of_a_page(self, *, is_alone: bool) -> AsyncIterator[None]:
        """Enter when a page may be asked for. It `is_alone` if live deliveries wait for it."""
        async with held(self._pages), self._turn if is_alone else nullcontext():
            yield

    async def _send_page(
        self, user_id: str, person: Attendee, question: MissedQuestion, *, is_alone: bool
    ) -> MissedAnswer:
        """Send the next page, and return it without its events: the person may wait long for the one behind it.

        It `is_alone` if live deliveries wait for it.
        """
        page = await ask_missed(self._store, question, ALONE_S if is_alone else MISSED_WITHIN_S)
        if page.events:
            # Portions have a slot and wait for the turn. So whoever has the turn must not wait for a slot.
            async with nullcontext() if is_alone else self._slots:
                # Meanwhile everybody may have gone, or somebody may have come for whom all begins anew.
                if self.roll.is_waiting(user_id, person):
                    person.sent = max(person.sent, page.events[-1].seq)
                    await self._line.deliver(self._stanzas(page.events))
        return page.model_copy(update={"events": []})

    def _stanzas(self, events: Sequence[StoredMessage]) -> Iterator[str]:
        for event in events:
            for stanza in write_deliveries(event, self._addresses, is_kept=False, is_late=True):
                if len(stanza) * _MOST_BYTES <= LARGEST_STANZA or len(stanza.encode()) <= LARGEST_STANZA:
                    self._sent.inc()
                    yield stanza

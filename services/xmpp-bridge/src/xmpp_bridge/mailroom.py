"""Puts together who is present in a shard, what they have missed, and what message-store is told about it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from tlim_protocol.mailboxes import NOTICED_S
from tlim_runtime.background import Background, Repeated, cancellable
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable

from xmpp_bridge.attendance import Attendance, keep_oldest
from xmpp_bridge.catch_up import CatchUps, Line
from xmpp_bridge.component import ComponentDown
from xmpp_bridge.lanes import Gaps
from xmpp_bridge.mailbox import Notes, Outdated, Store, ask_live
from xmpp_bridge.presences import Hello, Missed, Sign
from xmpp_bridge.translate import BridgeAddresses

logger = get_logger(__name__)

CLOCKS_MS = 60_000
"""The clocks of two services differ by less."""

RETRY_S = 1.0


class Mailroom:
    """Keeps the roll of a shard's people that are present, from the acquisition of the shard to its end.

    `attendance` knows who is there. Then message-store is asked who was there before, and its answer begins a new term:
    from then on it takes no notes of the bridge before. Only after that anything is delivered (`settled`). A server
    without our module never says hello. Then everything is sent to everybody, and the server keeps it for people who
    are away. `outdated` is called when the store says that another bridge has begun a later term.
    """

    def __init__(
        self,
        line: Line,
        store: Store,
        addresses: BridgeAddresses,
        metrics: Metrics,
        *,
        shard: int,
        attendance: Attendance,
        slots: asyncio.Semaphore,
        outdated: Callable[[], None],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = line
        self._store = store
        self._shard = shard
        self._outdated = outdated
        self._clock = clock
        self.turn = asyncio.Lock()
        """Held while a batch of live deliveries is on its way, or a portion of the slow lane."""
        self.gaps = Gaps()
        self._notes = Notes(store, shard, outdated)
        self._catch_ups = CatchUps(
            store,
            line,
            notes=self._notes,
            turn=self.turn,
            gaps=self.gaps,
            slots=slots,
            addresses=addresses,
            metrics=metrics,
        )
        self.roll = self._catch_ups.roll
        for sign in attendance.of(shard):
            self.roll.hear(sign)
        self._missed = {sign.user_id: sign.seq for sign in attendance.missed(shard)}  # until the roll is called
        self._handed_over = HandedOver(monotonic)
        self._settled = asyncio.Event()
        self._reason = "the XMPP server has not said who is present"
        self._work: tuple[Background | Repeated, ...] = (
            *self._catch_ups.workers,
            Background(f"roll call of shard {shard}", self._call_the_roll),
            Repeated(f"what is handed over of shard {shard}", self._note_settled, 1.0),
        )

    def start(self) -> None:
        """Begin."""
        for work in (self._notes.background, *self._work):
            work.start()

    async def finish_catch_ups(self) -> None:
        """Begin no other catch-up, and return when those that have begun are over."""
        await self._catch_ups.finish()

    async def stop(self, noted_s: float = 0) -> None:
        """Stop. Notes are still written, if that takes no more than `noted_s` seconds.

        Notes that are not written are made good by the next bridge, from who is present then, and from what it has
        heard of messages that reached nobody (Attendance).
        """
        for work in reversed(self._work):
            await work.stop()
        if self._notes.has_term:
            with suppress(TimeoutError):
                async with asyncio.timeout(noted_s):
                    await self._notes.written()
        await self._notes.background.stop()

    async def ping(self) -> None:
        """Raise Unavailable while somebody who is present may get nothing; for Health.add."""
        for work in self._work:
            await work.ping()
        await self._notes.ping()
        await self._catch_ups.ping()
        if self._reason:
            raise Unavailable(self._reason)

    def hear(self, sign: Sign) -> None:
        """Learn what the XMPP server's module says of the shard's people.

        If it was loaded after the call of the roll, the shard has no term to write notes in: then it is begun anew.
        """
        if isinstance(sign, Hello) and self.is_settled and self.server_keeps:
            self._outdated()
        elif isinstance(sign, Missed) and not self.is_settled:
            keep_oldest(self._missed, sign.user_id, sign.seq)
        else:
            self.roll.hear(sign)

    @property
    def is_settled(self) -> bool:
        """Whether it is known who is present. Before that nothing is delivered."""
        return self._settled.is_set()

    async def settled(self) -> None:
        """Wait until it is known who is present."""
        await self._settled.wait()

    @property
    def waiting(self) -> int:
        """How many people wait for their catch-up."""
        return self._catch_ups.waiting

    @property
    def server_keeps(self) -> bool:
        """Whether the server keeps deliveries for people who are away, as one without our module does."""
        return not self.roll.is_kept

    def is_due(self, user_id: str, seq: int) -> bool:
        """Whether a live delivery goes to the person (roll.py)."""
        return self.roll.is_due(user_id, seq)

    async def noted(self, user_ids: Iterable[str]) -> None:
        """Return when the store has all notes about these people that were made before."""
        await self._notes.written_about(user_ids)

    def handed_over(self, seq: int) -> None:
        """Note that the XMPP server has all live deliveries up to this seq."""
        if self.roll.is_kept:  # otherwise there are no mailboxes, and nobody asks for it
            self._handed_over.note(seq)

    async def _call_the_roll(self) -> None:
        while not self.is_settled:
            try:
                await cancellable(self._settle())
                self._reason = ""
            except Outdated:
                self._outdated()
                return
            except Unavailable as error:
                self._reason = f"who was present: {error}"
                await asyncio.sleep(RETRY_S)

    async def _settle(self) -> None:
        await self._line.barrier()  # the server answers behind the last of those who are there
        live: dict[str, list[str]] = {}
        if self.roll.is_kept:
            term, live = await ask_live(self._store, self._shard)
            self._notes.begin(term)
        self.roll.settle(live)
        self._settled.set()
        missed, self._missed = self._missed, {}
        for user_id, seq in missed.items():
            self.roll.hear(Missed(user_id, seq))
        logger.info("the roll is called", shard=self._shard, people=self.roll.present, is_kept=self.roll.is_kept)

    async def _note_settled(self) -> None:
        if not self.roll.is_kept:
            return
        seq, now = self._handed_over.before(NOTICED_S), int(self._clock() * 1_000)
        if seq is None:
            return
        # After a pause of this process, what the server has said of broken connections may not be read yet.
        with suppress(ComponentDown):
            await self._line.barrier()
            self._notes.settle(seq, now - NOTICED_S * 1_000 - CLOCKS_MS)


class HandedOver:
    """Up to which seq everything had been handed over at a time in the past."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._newest = 0
        self._steps: deque[tuple[float, int]] = deque()  # at most one a second
        self._told = 0

    def note(self, seq: int) -> None:
        """Note that everything up to `seq` is handed over."""
        now = self._clock()
        if seq > self._newest:
            self._newest = seq
            if not self._steps or now - self._steps[-1][0] >= 1:
                self._steps.append((now, seq))

    def before(self, seconds: float) -> int | None:
        """Return the seq of `seconds` ago. None: there is none, or the last answer was the same."""
        seq = 0
        limit = self._clock() - seconds
        while self._steps and self._steps[0][0] <= limit:
            seq = self._steps.popleft()[1]
        if seq <= self._told:
            return None
        self._told = seq
        return seq

"""Puts together who is present, what they have missed, and what message-store is told about it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from xml.etree.ElementTree import Element

from tlim_protocol.identity import delivery_shard
from tlim_runtime.background import Background, Repeated, cancellable
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable

from xmpp_bridge.catch_up import CatchUps, Line
from xmpp_bridge.component import ComponentDown
from xmpp_bridge.lanes import Unsent
from xmpp_bridge.mailbox import Notes, Store, ask_live
from xmpp_bridge.presences import Hello, read_presence
from xmpp_bridge.translate import BridgeAddresses

logger = get_logger(__name__)

NOTICED_S = 180
"""A client's broken connection is noticed within this time: ejabberd takes 120 s, and Prosody 160 s (deploy/)."""

CLOCKS_MS = 60_000
"""The clocks of two services differ by less."""

RETRY_S = 1.0


class Mailroom:
    """Keeps the roll of a delivery shard's people that are present, while there is a connection to the XMPP server.

    With a new connection the server's module says who is there. Then message-store is asked who was there before. Only
    after that anything is delivered (`settled`). A server without our module never says hello. Then everything is sent
    to everybody, and the server keeps it for people who are away.
    """

    def __init__(
        self,
        component: Line,
        store: Store,
        addresses: BridgeAddresses,
        metrics: Metrics,
        *,
        shard: int,
        timeout_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._component = component
        self._store = store
        self._addresses = addresses
        self._timeout_s = timeout_s
        self._clock = clock
        self.turn = asyncio.Lock()
        """Held while a batch of live deliveries is on its way, or a portion of the slow lane."""
        self.unsent = Unsent()
        self._shard = shard
        self._notes = Notes(store, shard)
        self._catch_ups = CatchUps(
            store,
            component,
            shard,
            notes=self._notes,
            turn=self.turn,
            unsent=self.unsent,
            addresses=addresses,
            metrics=metrics,
        )
        self.roll = self._catch_ups.roll
        self._handed_over = HandedOver(monotonic)
        self._up, self._settled = asyncio.Event(), asyncio.Event()
        self._connection = 0
        self._reason = ""
        self._work: tuple[Background | Repeated, ...] = (
            self._notes.background,
            *self._catch_ups.workers,
            Background("roll call", self._call_the_roll),
            Repeated("what is handed over", self._note_settled, 1.0),
        )
        present = metrics.gauge("tlim_bridge_people_present", "People with at least one session", ("shard",))
        present.labels(str(shard)).set_function(lambda: self.roll.present)

    def start(self) -> None:
        """Begin."""
        for work in self._work:
            work.start()

    async def stop(self) -> None:
        """Stop. Notes that were not written are made good by the next process, from who is present then."""
        for work in reversed(self._work):
            await work.stop()

    async def ping(self) -> None:
        """Raise Unavailable while somebody who is present may get nothing; for Health.add."""
        for work in self._work:
            await work.ping()
        await self._notes.ping()
        await self._catch_ups.ping()
        if self._reason:
            raise Unavailable(self._reason)

    def hear(self, presence: Element) -> None:
        """Take a `<presence>` of the component's stream."""
        sign = read_presence(presence, self._addresses)
        if isinstance(sign, Hello) or (sign is not None and delivery_shard(sign.user_id) == self._shard):
            self.roll.hear(sign)

    def went_up(self) -> None:
        """Note that there is a connection to the XMPP server."""
        self._connection += 1
        self._up.set()

    def went_down(self) -> None:
        """Note that it is lost."""
        self._connection += 1
        self._up.clear()
        self._settled.clear()
        self.roll.clear()
        self._handed_over.forget()

    async def settled(self) -> None:
        """Wait until it is known who is present; raises ComponentDown after the time-out."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._settled.wait()
        except TimeoutError:
            raise ComponentDown(self._reason or "the XMPP server has not said who is present") from None

    @property
    def server_keeps(self) -> bool:
        """Whether the server keeps deliveries for people who are away, as one without our module does."""
        return not self.roll.is_kept

    def is_due(self, user_id: str, seq: int) -> bool:
        """Whether a live delivery goes to the person (roll.py)."""
        return self.roll.is_due(user_id, seq)

    def handed_over(self, seq: int) -> None:
        """Note that the XMPP server has all live deliveries up to this seq."""
        self._handed_over.note(seq)

    async def _call_the_roll(self) -> None:
        while True:
            await self._up.wait()
            try:
                await cancellable(self._settle())
                self._reason = ""
            except ComponentDown:
                self._reason = ""  # the check of the connection says it
            except Unavailable as error:
                self._reason = f"who was present: {error}"
                await asyncio.sleep(RETRY_S)

    async def _settle(self) -> None:
        connection = self._connection
        await self._component.barrier()  # the server answers behind the last of those who are there
        live: dict[str, list[str]] = {}
        if self.roll.is_kept:
            if self._notes.has_term:
                await self._notes.written()
            term, live = await ask_live(self._store, self._shard)
            self._notes.begin(term)
        if self._connection == connection:
            self.roll.settle(live)
            self._up.clear()
            self._settled.set()
            logger.info("the roll is called", shard=self._shard, people=self.roll.present, is_kept=self.roll.is_kept)

    async def _note_settled(self) -> None:
        if not self.roll.is_kept:
            return
        seq, now = self._handed_over.before(NOTICED_S), int(self._clock() * 1_000)
        if seq is None:
            return
        # After a pause of this process, what the server has said of broken connections may not be read yet.
        with suppress(ComponentDown):
            await self._component.barrier()
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

    def forget(self) -> None:
        """Forget the times: a server that has stopped for a while notices broken connections that much later."""
        self._steps.clear()

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

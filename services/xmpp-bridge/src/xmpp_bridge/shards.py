"""The shards of this bridge: each is opened when its lease was taken, and closed when it is given up or lost."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol

from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard
from tlim_runtime.background import Background, Tasks
from tlim_runtime.logging import get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable

from xmpp_bridge.attendance import Attendance
from xmpp_bridge.component import ComponentDown
from xmpp_bridge.fence import FencedLine
from xmpp_bridge.leases import LeaseBroker, Leases
from xmpp_bridge.mailroom import Mailroom
from xmpp_bridge.metrics import BridgeMetrics
from xmpp_bridge.presences import Hello, Sign
from xmpp_bridge.shares import Held
from xmpp_bridge.subscribers import OutboxSubscriber

logger = get_logger(__name__)

CAUGHT_UP_S = 5.0
"""How long a shard that is given up may go on with catch-ups. What is not over then, the next bridge begins anew."""

FINISHED_S = 10.0
"""How long a shard that is given up may go on until its slow lane is empty: a message to 10,000 people takes 7 s. Until
everything is sent that waited there first, other messages overtake it. Then they wait for the little that has come
meanwhile. If the time is over, what is not begun is left to the next bridge, and what has overtaken it comes again."""

IN_HAND_S = 2.0
"""How long it may then finish at least what is begun: people wait for that, and after a kill they would wait as long.
Of a message that is half sent by then, that half comes again."""

NOTED_S = 2.0
"""How long what is known of mailboxes may wait for the store then. What is not written, the next bridge sees anew."""


class Consumer(Protocol):
    """A shard's deliveries (tlim_runtime.consumer.BatchConsumer)."""

    def go_back(self, first: int | None) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def abort(self) -> None: ...
    async def ping(self) -> None: ...

    @property
    def going_back(self) -> int | None: ...


class ShardParts(NamedTuple):
    """What a shard consists of, beside its lease."""

    line: FencedLine
    mailroom: Mailroom
    outbox: OutboxSubscriber
    consumer: Consumer


class Shard:
    """One shard from the acquisition of its lease to its end.

    The roll is called first. Only then is the consumer opened, and the bridge before gets no message any more.
    """

    def __init__(self, held: Held, parts: ShardParts) -> None:
        self.held = held
        self.line, self.mailroom, self.outbox, self.consumer = parts
        self._opening = Background(f"opening of shard {held.shard}", self._open)

    def start(self) -> None:
        """Begin to deliver, as soon as it is known who is present."""
        self.mailroom.start()
        self._opening.start()

    async def _open(self) -> None:
        await self.mailroom.settled()
        await self.consumer.start()

    async def finish(self) -> None:
        """Stop in order: nothing that is in hand comes again, and what is known of mailboxes is noted.

        Under load something always comes into the slow lane. So the consumer stops when that is little.
        """
        until = asyncio.get_running_loop().time() + FINISHED_S
        await self._opening.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(CAUGHT_UP_S):
                await self.mailroom.finish_catch_ups()
        try:
            async with asyncio.timeout_at(until):
                await self.outbox.emptied()
                await self.consumer.stop()
        except TimeoutError:
            self.outbox.end()
            with suppress(TimeoutError):
                async with asyncio.timeout(IN_HAND_S):
                    await self.consumer.stop()
        await self.abort(NOTED_S)

    async def abort(self, noted_s: float = 0) -> None:
        """Stop at once. What is known of mailboxes is still noted, if that takes no more than `noted_s` seconds."""
        self.line.close()
        await self._opening.stop()
        await self.consumer.abort()
        await self.outbox.close()
        await self.mailroom.stop(noted_s)


Make = Callable[[Held, Callable[[], None]], ShardParts]


class Shards:
    """Opens and closes shards as leases come and go.

    `make` gets a lease, and what it must call when the store says that another bridge has the shard. A shard is closed
    before it is opened again. While it is being closed, it still hears who comes and goes, and notes it.
    """

    def __init__(
        self,
        broker: LeaseBroker,
        instance: str,
        make: Make,
        attendance: Attendance,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = Leases(broker, instance, self, clock=clock)
        self._make = make
        self._attendance = attendance
        self._shards: dict[int, Shard] = {}
        self._closing: dict[int, asyncio.Task[None]] = {}
        self._firsts: dict[int, int] = {}  # where delivery begins again after a lost connection
        self._is_up = False
        self._tasks = Tasks()
        self._register(metrics)

    async def start(self) -> None:
        """Listen to the other bridges; shards are taken when there is a connection to the XMPP server."""
        await self._leases.start()

    async def stop(self) -> None:
        """Finish all shards, and give them up."""
        self._leases.leave()
        self._is_up = False
        for shard in self._open():
            self._close(shard, shard.finish())
        await asyncio.gather(*self._closing.values())
        await self._leases.stop()
        await self._tasks.close()

    def hear(self, sign: Sign) -> None:
        """Learn what the XMPP server's module says."""
        self._attendance.hear(sign)
        for shard in self._shards.values():
            if isinstance(sign, Hello) or delivery_shard(sign.user_id) == shard.held.shard:
                shard.mailroom.hear(sign)

    def went_up(self) -> None:
        """Note that there is a connection to the XMPP server."""
        self._is_up = True
        self._leases.join()

    def went_down(self) -> None:
        """Note that it is lost: nothing more can be delivered, and another bridge may be better off."""
        self._is_up = False
        self._leases.leave()
        for shard in self._shards.values():
            # Nothing as well if a connection is lost again before the shard is closed, or is open.
            known = (shard.outbox.connection_lost(), shard.consumer.going_back, self._firsts.get(shard.held.shard))
            firsts = [first for first in known if first is not None]
            if firsts:
                self._firsts[shard.held.shard] = min(firsts)
            shard.line.close()
        for shard in self._open():
            self._close(shard, shard.abort(NOTED_S))
        self._attendance.clear()

    def taken(self, held: Held) -> None:
        """Open a shard, as soon as it is closed."""
        logger.info("a shard was taken", shard=held.shard)
        closing = self._closing.get(held.shard)
        if closing is None:
            self._begin(held)
        else:
            closing.add_done_callback(lambda _done: self._begin(held))

    def lost(self, held: Held) -> None:
        """Close a shard at once: it has another owner."""
        shard = self._shards.get(held.shard)
        if shard is not None and shard.held is held:
            shard.line.close()
            if held.shard not in self._closing:
                self._close(shard, shard.abort())

    def give_up(self, held: Held) -> None:
        """Close a shard in order: another bridge has less than its share."""
        shard = self._shards.get(held.shard)
        if shard is not None and shard.held is held and held.shard not in self._closing:
            logger.info("a shard is given up", shard=held.shard)
            self._close(shard, shard.finish())

    async def ping(self) -> None:
        """Raise Unavailable while shards that this bridge should have cannot be had; for Health.add."""
        await self._leases.ping()
        if self._leases.is_waiting:
            raise Unavailable("a shard waits for a bridge")

    async def ping_deliveries(self) -> None:
        """Raise Unavailable while the deliveries of a shard wait."""
        self._check_up()
        for shard in self._open():
            await shard.consumer.ping()

    async def ping_mailboxes(self) -> None:
        """Raise Unavailable while somebody who is present may get nothing."""
        self._check_up()
        for shard in self._open():
            await shard.mailroom.ping()

    def _check_up(self) -> None:
        if not self._is_up:
            raise ComponentDown("no XMPP connection")

    def _open(self) -> list[Shard]:
        return [shard for number, shard in self._shards.items() if number not in self._closing]

    def _begin(self, held: Held) -> None:
        if not self._is_up:
            self._leases.release(held)
        if held.is_over:
            return
        parts = self._make(held, lambda: self.lost(held))
        parts.consumer.go_back(self._firsts.pop(held.shard, None))
        shard = self._shards[held.shard] = Shard(held, parts)
        shard.start()

    def _close(self, shard: Shard, how: Coroutine[None, None, None]) -> None:
        number = shard.held.shard
        self._closing[number] = self._tasks.start(self._end(shard, how), f"closing of shard {number}")

    async def _end(self, shard: Shard, how: Coroutine[None, None, None]) -> None:
        try:
            await how
        finally:
            del self._shards[shard.held.shard], self._closing[shard.held.shard]
            self._leases.release(shard.held)
            logger.info("a shard is closed", shard=shard.held.shard)

    def _delivers(self, number: int) -> bool:
        shard = self._shards.get(number)
        return shard is not None and shard.mailroom.is_settled

    def _register(self, metrics: Metrics) -> None:
        ours = BridgeMetrics(metrics)
        for number in range(DELIVERY_SHARDS):
            ours.shards.labels(str(number)).set_function(partial(self._delivers, number))
        ours.people_present.set_function(lambda: sum(shard.mailroom.roll.present for shard in self._shards.values()))
        ours.catch_ups_waiting.set_function(lambda: sum(shard.mailroom.waiting for shard in self._shards.values()))

"""Takes, renews and gives up the leases of delivery shards (shares.py), over a stream with one message per subject."""

import asyncio
import itertools
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, Protocol

from tlim_protocol.identity import DELIVERY_SHARDS
from tlim_protocol.leases import BridgeBeat, Lease
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import ALL_LEASES, lease_of_bridge, lease_of_shard
from tlim_runtime.background import Repeated
from tlim_runtime.broker import Overtaken
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable, Unavailable

from xmpp_bridge.shares import RENEW_S, Book, Held

logger = get_logger(__name__)

LOOK_S = 0.1
"""How often we look whether something is due. A look costs nothing if nothing is."""

ANSWERED_S = 0.9
"""A stream answers within milliseconds. After this time another try can still be in time for a lease."""

_BRIDGE = lease_of_bridge("")
_SHARD = lease_of_shard(0)[:-1]
_READ = f"STREAM.MSG.GET.{StreamName.LEASES}"
_NO_MESSAGE = 10037  # JetStream's err_code


class LeaseBroker(Protocol):
    """NATS, as far as leases need it (tlim_runtime.broker.Broker)."""

    async def replace(self, subject: str, payload: bytes, newest: int, timeout_s: float) -> int: ...
    async def api(self, operation: str, **arguments: object) -> dict[str, Any]: ...
    async def send(self, subject: str, payload: bytes) -> None: ...
    async def listen(self, subject: str, heard: Callable[[str, bytes], None]) -> None: ...


class Owner(Protocol):
    """What has the shards of this process (shards.Shards)."""

    def taken(self, held: Held) -> None:
        """Begin with a shard."""

    def lost(self, held: Held) -> None:
        """Stop at once: the shard has another owner."""

    def give_up(self, held: Held) -> None:
        """Finish what is in hand and then call Leases.release. It is said again until then."""


class Leases:
    """Keeps this bridge's share of the shards while it is a member: between `join` and `leave`.

    One loop does all the writing. A lease that could not be renewed in time lapses, and `Held.check` raises. It is
    renewed later if nobody has taken the shard meanwhile.
    """

    def __init__(
        self, broker: LeaseBroker, instance: str, owner: Owner, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._broker = broker
        self._me = instance
        self._owner = owner
        self._clock = clock
        self._book = Book(instance, DELIVERY_SHARDS, clock)
        self._numbers = itertools.count(1)
        self._is_member = False
        self._has_left = False
        self._releasing: dict[int, int] = {}  # the seq to replace, by shard
        self._renewed_at = float("-inf")
        self._reason = ""
        self._loop = Repeated("leases of shards", self._look, LOOK_S)

    @property
    def held(self) -> Collection[Held]:
        """The leases of this process."""
        return self._book.held.values()

    async def start(self) -> None:
        """Begin to listen to the other bridges."""
        await self._broker.listen(ALL_LEASES, self._hear)
        self._loop.start()

    def join(self) -> None:
        """Take shards from now on: there is a connection to the XMPP server."""
        self._is_member, self._renewed_at = True, float("-inf")
        self._loop.wake()

    def leave(self) -> None:
        """Take no more shards. Those that this bridge has stay until `release` is called, or their leases end."""
        self._is_member, self._has_left = False, True
        self._loop.wake()

    def release(self, held: Held) -> None:
        """Give up a shard at once, if it was not lost: nothing may be written for it any more. Others can take it."""
        if not held.is_over:
            self._book.end(held.shard)
            self._releasing[held.shard] = held.seq
            self._loop.wake()

    async def stop(self) -> None:
        """Leave, and give up everything; does not insist on it without NATS."""
        self._is_member, self._has_left = False, True
        for held in list(self.held):
            self.release(held)
        await self._loop.stop()
        with suppress(Unavailable):
            await self._tell()
            while self._releasing:
                await self._write_releases()

    async def ping(self) -> None:
        """Raise Unavailable while leases cannot be taken or renewed; for Health.add."""
        await self._loop.ping()
        for held in self.held:
            held.check()
        if self._reason:
            raise Unavailable(self._reason)

    @property
    def is_waiting(self) -> bool:
        """Whether there are shards that this bridge is about to take."""
        return self._is_member and bool(self._book.unknown() or self._book.wanted())

    async def _look(self) -> None:
        try:
            await self._tell()
            await self._write_releases()
            await self._renew_all()
            if self._is_member:
                await _all(self._see(shard) for shard in self._book.unknown())
                await _all(self._try_to_take(shard) for shard in self._book.wanted())
                for held in self._book.surplus():
                    self._owner.give_up(held)
            self._reason = ""
        except Unavailable as error:
            self._reason = f"leases of shards: {error}"

    def _hear(self, subject: str, payload: bytes) -> None:
        try:
            if subject.startswith(_BRIDGE):
                self._book.beat(subject.removeprefix(_BRIDGE), is_there=BridgeBeat.from_bytes(payload).is_there)
                return
            shard, lease = int(subject.removeprefix(_SHARD)), Lease.from_bytes(payload)
        except ValueError:
            logger.exception("no lease", subject=subject)
            return
        if lease.writer != self._me:
            self._book.see(shard, lease)
            if lease.owner is None:
                self._loop.wake()

    async def _tell(self) -> None:
        is_due = self._clock() - self._renewed_at >= RENEW_S
        if self._has_left or (self._is_member and is_due):
            self._has_left = False
            await self._broker.send(lease_of_bridge(self._me), BridgeBeat(is_there=self._is_member).to_bytes())

    async def _renew_all(self) -> None:
        if self._clock() - self._renewed_at < RENEW_S:
            return
        self._renewed_at = self._clock()
        await _all(self._renew(held) for held in list(self.held))

    async def _renew(self, held: Held) -> None:
        begun = self._clock()
        try:
            seq = await self._write(held.shard, held.seq, self._me)
        except Overtaken:
            await self._look_who_has(held)
        else:
            held.renewed(seq, begun)

    async def _look_who_has(self, held: Held) -> None:
        seq, lease = await self._read(held.shard)
        if lease is not None and lease.owner == self._me and not held.is_over:
            held.seq = seq  # we wrote it, and its acknowledgement was lost
            self._renewed_at = float("-inf")
            return
        if self._book.held.get(held.shard) is held:
            self._book.end(held.shard)
            self._book.see(held.shard, lease)
            logger.warning("a shard was lost", shard=held.shard, owner=lease and lease.owner)
            self._owner.lost(held)

    async def _see(self, shard: int) -> int:
        seq, lease = await self._read(shard)
        self._book.see(shard, lease)
        return seq

    async def _try_to_take(self, shard: int) -> None:
        newest = await self._see(shard)
        if not (self._is_member and self._book.is_free(shard)) or shard in self._releasing:
            return
        begun = self._clock()
        with suppress(Overtaken):
            seq = await self._write(shard, newest, self._me)
            held = self._book.take(shard, seq, begun)
            if self._is_member:
                self._owner.taken(held)
            else:
                self.release(held)

    async def _write_releases(self) -> None:
        for shard, seq in list(self._releasing.items()):
            try:
                await self._write(shard, seq, None)
            except Overtaken:  # another bridge has the shard, or a renewal has not been acknowledged
                newest, lease = await self._read(shard)
                if lease is not None and lease.owner == self._me:
                    self._releasing[shard] = newest
                    continue
            self._releasing.pop(shard, None)

    async def _write(self, shard: int, newest: int, owner: str | None) -> int:
        lease = Lease(owner=owner, writer=self._me, number=next(self._numbers))
        return await self._broker.replace(lease_of_shard(shard), lease.to_bytes(), newest, ANSWERED_S)

    async def _read(self, shard: int) -> tuple[int, Lease | None]:
        """Return the newest message of a shard's subject: its seq, and what it says. 0 and None: there is none."""
        try:
            async with asyncio.timeout(ANSWERED_S):
                answer = await self._broker.api(_READ, last_by_subj=lease_of_shard(shard))
        except TimeoutError:
            raise BrokerUnavailable(f"the lease of shard {shard}: no answer in time") from None
        error = answer.get("error")
        if error is not None and error.get("err_code") != _NO_MESSAGE:
            raise BrokerUnavailable(f"the lease of shard {shard}: {error.get('description')}")
        if error is not None:
            return 0, None
        return answer["message"]["seq"], Lease.from_bytes(b64decode(answer["message"]["data"]))


async def _all(works: Iterable[Awaitable[object]]) -> None:
    """Do all of it, and then raise the first failure."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome

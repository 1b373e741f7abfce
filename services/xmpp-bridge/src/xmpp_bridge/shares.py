"""Which bridge has which delivery shards: what one bridge knows of it, and what it may do. No I/O, and one clock.

A shard's lease is the newest message of its subject in a stream. Whoever writes names the message that the new one
replaces, so of two bridges that write at the same time only one succeeds. An owner renews its leases every RENEW_S.

    owner:  the renewal begins ──► written ──────────────► HELD_S after the beginning: it delivers no more
    taker:                              ──► heard ─────────────────────► SILENT_S after the hearing: it may write

The hearing is later than the beginning, and SILENT_S is more than HELD_S. So the owner has always stopped before
another bridge begins. Each of the two times is measured by one process alone: no two clocks are compared.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlim_protocol.leases import Lease
from tlim_runtime.outages import Unavailable

RENEW_S = 0.5
"""How often leases are renewed. Two renewals may fail before a lease lapses."""

HELD_S = 1.5
"""How long a lease holds, from the beginning of the last renewal that succeeded."""

SILENT_S = 2.0
"""A lease that was not renewed for so long is free. Half a second more than HELD_S is for clocks that run unequally."""


class LeaseLapsed(Unavailable):
    """This process does not have the shard at the moment, or has it no more: it may write nothing."""


class Held:
    """One shard's lease in the hands of this process, from its acquisition to its end."""

    def __init__(self, shard: int, seq: int, begun: float, clock: Callable[[], float]) -> None:
        self.shard = shard
        self.seq = seq  # of the message that the next renewal replaces
        self._begun = begun
        self._clock = clock
        self.is_over = False
        """Whether it was given up or lost. A lease that has only lapsed can still be renewed."""

    @property
    def is_valid(self) -> bool:
        """Whether the shard is certainly nobody else's."""
        return not self.is_over and self._clock() - self._begun < HELD_S

    def check(self) -> None:
        """Raise LeaseLapsed unless the shard is certainly nobody else's."""
        if not self.is_valid:
            raise LeaseLapsed(f"the lease of shard {self.shard} is {'over' if self.is_over else 'not renewed'}")

    def renewed(self, seq: int, begun: float) -> None:
        """Note that the message `seq` renewed it. The renewal began at `begun`."""
        self.seq, self._begun = seq, begun


@dataclass(slots=True)
class _Seen:
    lease: Lease | None  # None: the shard has never had an owner
    at: float  # when it was seen first


class Book:
    """What the bridge `me` knows of the other bridges and of the leases."""

    def __init__(self, me: str, shards: int, clock: Callable[[], float]) -> None:
        self._me = me
        self._clock = clock
        self._seen: dict[int, _Seen] = {}
        self._beats: dict[str, float] = {}
        self.held: dict[int, Held] = {}
        # Every bridge has another order. So two bridges seldom want the same shard first.
        self._order = sorted(range(shards), key=lambda shard: hashlib.sha256(f"{me} {shard}".encode()).digest())

    def beat(self, bridge: str, *, is_there: bool) -> None:
        """Note that a bridge says that it can take shards, or that it cannot."""
        if is_there:
            self._beats[bridge] = self._clock()
        else:
            self._beats.pop(bridge, None)

    def share(self) -> int:
        """Return how many shards this bridge should have. The shares of all bridges make up all shards."""
        recent = self._clock() - SILENT_S
        self._beats = {bridge: at for bridge, at in self._beats.items() if at > recent}
        bridges = sorted({*self._beats, self._me})
        each, more = divmod(len(self._order), len(bridges))
        return each + (bridges.index(self._me) < more)

    def see(self, shard: int, lease: Lease | None) -> None:
        """Note the newest lease of a shard, as it was heard or read. To see the same one again changes nothing."""
        seen = self._seen.get(shard)
        if seen is None or seen.lease != lease:
            self._seen[shard] = _Seen(lease, self._clock())

    def is_free(self, shard: int) -> bool:
        """Whether the shard can be taken, if the newest lease that was seen is still the newest."""
        seen = self._seen.get(shard)
        if seen is None or shard in self.held:
            return False
        lease = seen.lease
        return lease is None or lease.owner in {None, self._me} or self._clock() - seen.at >= SILENT_S

    def unknown(self) -> Sequence[int]:
        """Return the shards whose lease was neither heard nor read."""
        return [shard for shard in self._order if shard not in self._seen and shard not in self.held]

    def wanted(self) -> Sequence[int]:
        """Return the free shards that this bridge should try to take, up to its share."""
        room = max(self.share() - len(self.held), 0)
        return [shard for shard in self._order if self.is_free(shard)][:room]

    def surplus(self) -> Sequence[Held]:
        """Return the leases that this bridge should give up, because others have less than their share."""
        held = [self.held[shard] for shard in self._order if shard in self.held]
        return held[self.share() :]

    def take(self, shard: int, seq: int, begun: float) -> Held:
        """Note that this bridge has the shard. The message `seq` says so, and its writing began at `begun`."""
        held = self.held[shard] = Held(shard, seq, begun, self._clock)
        return held

    def end(self, shard: int) -> None:
        """End the lease of a shard at once."""
        self.held.pop(shard).is_over = True
        self._seen.pop(shard, None)

"""A simulation of the way of a message, with as many processes as one likes: it checks the arithmetic of capacity.py.

    clients -> ejabberd -> bridge -> stream -> store -> stream -> delivery shard -> bridge -> ejabberd -> clients

Discrete events: a clock, and stations with queues. Times of service are fixed. What is random is when messages come,
who writes them, and who gets them. The same seed gives the same run. Every process has a core of its own; the two
directions of a bridge share one. What a message waits for without a processor, such as a commit, stands in `Waits`.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple

from bench.comparing import percentile

Then = Callable[[], None]
"""What happens when a job is done."""


class Clock:
    """The time of the simulation, in seconds, and what happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Then]] = []
        self._number = count()

    def after(self, seconds: float, then: Then) -> None:
        """Call `then` when so much time has passed. Of two events at the same time, the older one comes first."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), then))

    def run(self, until: float = float("inf")) -> None:
        """Let everything happen, up to a time."""
        while self._events and self._events[0][0] <= until:
            self.now, _, then = heapq.heappop(self._events)
            then()


class Station:
    """A queue in front of some servers. A free server takes up to `most` jobs as one batch, in order.

    A batch takes `fixed` seconds and those of its jobs. With `inside`, it then also needs a turn at that station, of
    `held` seconds and `held_each` for each job: that is a lock, or a processor that several stations share.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        servers: int = 1,
        fixed: float = 0.0,
        most: int = 1,
        inside: "Station | None" = None,
        held: float = 0.0,
        held_each: float = 0.0,
    ) -> None:
        self.busy = 0.0
        """Seconds for which its servers had something to do, all together."""
        self.jobs = self.batches = 0
        """How many it has begun."""
        self._clock, self._free, self._fixed, self._most = clock, servers, fixed, most
        self._inside, self._held, self._held_each = inside, held, held_each
        self._queue: deque[tuple[float, Then]] = deque()

    @property
    def waiting(self) -> int:
        """How many jobs no server has begun yet."""
        return len(self._queue)

    def take(self, seconds: float, then: Then) -> None:
        """Put a job into the queue."""
        self._queue.append((seconds, then))
        if self._free:
            self._begin()

    def _begin(self) -> None:
        self._free -= 1
        batch = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
        self.jobs, self.batches = self.jobs + len(batch), self.batches + 1
        done = partial(self._finish, self._clock.now, [then for _, then in batch])
        if self._inside is not None:
            held = self._held + self._held_each * len(batch)
            done = partial(self._inside.take, held, done)
        self._clock.after(self._fixed + sum(seconds for seconds, _ in batch), done)

    def _finish(self, begun: float, batch: Sequence[Then]) -> None:
        self.busy += self._clock.now - begun
        self._free += 1
        if self._queue:
            self._begin()
        for then in batch:
            then()


class Work(NamedTuple):
    """Seconds of a processor that a message needs: on its way in, in the store, and for each event on its way out."""

    server_in: float
    bridge_in: float
    store: float
    database: float
    bridge_out: float
    server_out: float


class Waits(NamedTuple):
    """Seconds that pass without a processor.

    Until a stream has a message, for a commit, until what came of a batch is published, until the XMPP server has
    answered the ping behind a batch, and on the way between client and server.
    """

    accept: float
    commit: float
    publish: float
    deliver: float
    clients: float


class Layout(NamedTuple):
    """How many of each there are. `one_lock`: all stores draw their seqs under the same lock."""

    server_cores: int
    bridges: int
    stores: int
    one_lock: bool
    shards: int
    receivers: int = 1
    batch: int = 500


class Simulated(NamedTuple):
    """What came of a simulated run.

    `rate`: messages a second that were complete; latencies in seconds. `busy`: 1 if all processes of a kind were, all
    the time. `batch`: messages in a batch of a store. `longest`: where most messages waited at the end.
    """

    rate: float
    latencies: Sequence[float]
    busy: dict[str, float]
    batch: float
    longest: str

    def latency(self, share: int) -> float:
        """Return a percentile of the latencies, in seconds; nan if nothing arrived."""
        return percentile(self.latencies, share) if self.latencies else float("nan")


class Pipeline:
    """All stations of a layout, and the messages in them."""

    def __init__(self, layout: Layout, work: Work, waits: Waits, seed: int) -> None:
        self._layout, self._work, self._waits = layout, work, waits
        self._clock, self._random = Clock(), random.Random(seed)  # noqa: S311 - a simulation
        clock = self._clock
        self._server = Station(clock, servers=layout.server_cores)
        self._bridges = [Station(clock) for _ in range(layout.bridges)]
        locks = [Station(clock) for _ in range(1 if layout.one_lock else layout.stores)]
        self._stores = [
            Station(
                clock, fixed=waits.publish, most=layout.batch,
                inside=locks[number % len(locks)], held=waits.commit, held_each=work.database,
            )
            for number in range(layout.stores)
        ]  # fmt: skip
        self._shards = [
            Station(
                clock, fixed=waits.deliver, most=layout.batch,
                inside=self._bridges[number % layout.bridges], held_each=work.bridge_out,
            )
            for number in range(layout.shards)
        ]  # fmt: skip
        self._kinds = {"ejabberd": [self._server], "xmpp-bridge": self._bridges, "message-store": self._stores}
        self._locks = {"lock of seq": locks}
        self._arrived: list[tuple[float, float]] = []  # when, and after which time

    def run(self, rate: float, seconds: float) -> Simulated:
        """Let messages come at random times, `rate` a second on average. The first half is not counted: queues fill."""
        at = 0.0
        while (at := at + self._random.expovariate(rate)) < seconds:
            self._clock.after(at, partial(self._comes, at))
        self._clock.run(until=seconds)
        counted_from = seconds / 2
        latencies = [after for when, after in self._arrived if when >= counted_from]
        servers = {"ejabberd": self._layout.server_cores}
        kinds = self._kinds | self._locks
        busy = {
            kind: sum(one.busy for one in ones) / seconds / servers.get(kind, len(ones)) for kind, ones in kinds.items()
        }
        waiting = {kind: sum(one.waiting for one in ones) for kind, ones in kinds.items()}
        longest = max(waiting, key=lambda kind: waiting[kind])
        batch = sum(one.jobs for one in self._stores) / max(sum(one.batches for one in self._stores), 1)
        return Simulated(len(latencies) / (seconds - counted_from), latencies, busy, batch, longest)

    def _comes(self, at: float) -> None:
        pick, work, waits = self._random.choice, self._work, self._waits
        bridge, store = pick(self._bridges), pick(self._stores)
        shards = [pick(self._shards) for _ in range(self._layout.receivers)]
        missing = [len(shards)]

        def arrives() -> None:
            missing[0] -= 1
            if not missing[0]:
                self._arrived.append((self._clock.now, self._clock.now + waits.clients - at))

        def leaves() -> None:
            self._server.take(work.server_out, arrives)

        def is_stored() -> None:
            for shard in shards:
                shard.take(0.0, leaves)

        def is_kept() -> None:
            store.take(work.store, is_stored)

        def is_accepted() -> None:
            self._clock.after(waits.accept, is_kept)

        self._server.take(work.server_in, lambda: bridge.take(work.bridge_in, is_accepted))

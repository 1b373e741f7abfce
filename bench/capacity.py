"""The arithmetic of scaling: from what one message and one connected person cost to how many of each process it takes.

Everything here is a pure function of `Measured` and of what the code and its settings say: numbers of shards, sizes of
batches and streams. What is assumed and not measured stands in `Assumed`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from message_store.settings import PARTITION_SPAN, Settings
from tlim_protocol.identity import DELIVERY_SHARDS
from tlim_protocol.streams import BRIDGE_OUTBOXES, STREAMS, StreamName
from tlim_runtime.tracing import Stage

from bench.latency import CLIENTS
from bench.pipeline import Layout, Waits, Work

BATCH = int(Settings.model_fields["batch_size"].default)
KEEP_S = BRIDGE_OUTBOXES[0].keep.total_seconds()
MAX_BYTES = {spec.name: spec.max_bytes for spec in STREAMS}
REMEMBERED_S = next(spec for spec in STREAMS if spec.name is StreamName.OUT).duplicate_window.total_seconds()
DAY_S = 86_400


class Sizes(NamedTuple):
    """Bytes of a message to one person.

    On the disk of PostgreSQL with all indexes, in its write-ahead log, in the two streams, into and out of NATS, and
    between all processes, its clients included. `events`: how many messages of TLIM_OUT come of it.
    """

    table: float
    wal: float
    stream_in: float
    stream_out: float
    events: float
    nats_in: float
    nats_out: float
    network: float


class Measured(NamedTuple):
    """What a run found.

    Processor time is in µs by process: of a message to one person, of each further receiver, of a login. `memory`:
    bytes of each connected person. `stages`: milliseconds under light load.
    """

    message: Mapping[str, float]
    receiver: Mapping[str, float]
    login: Mapping[str, float]
    memory: Mapping[str, float]
    stages: Mapping[str, float]
    sizes: Sizes

    def micros(self, process: str, receivers: float = 1.0) -> float:
        """Return the processor time of a process for a message to so many people."""
        return self.message[process] + (receivers - 1) * self.receiver[process]


class Assumed(NamedTuple):
    """What a plan assumes. `busy`: a core is planned for so much work, because queues grow without bound towards 1."""

    receivers: float = 2.0  # of a message, on average: most have one, and a message to a group has many
    busy: float = 0.6
    node_cores: int = 16
    node_bytes: int = 64 * 2**30
    mean_share: float = 0.2  # the day's mean rate, as a share of its peak
    file_share: float = 0.02  # of all messages carry a file
    file_bytes: int = 300_000
    copies: int = 3  # of each stream: JetStream with replicas


class Target(NamedTuple):
    """What a system is planned for: people connected at a time, and messages a second at the peak."""

    users: int
    rate: int


class Limit(NamedTuple):
    """A number of messages a second that cannot be passed, and what it is made of."""

    what: str
    rate: float
    because: str


class Plan(NamedTuple):
    """What a target needs. Bytes are plain bytes, and rates are per second at the peak unless a name says otherwise."""

    stores: int
    bridges: int
    ejabberd_nodes: int
    ejabberd_node_bytes: float
    bridge_bytes: float
    postgres_cores: int
    nats_cores: int
    table_bytes_a_day: float
    partitions_a_day: float
    wal_bytes: float
    stream_bytes: float
    outage_s: float
    remembered_ids: float
    nats_bytes: float
    network_bytes: float
    s3_bytes: float
    relogin_s: float


# --- what the code of today allows ------------------------------------------------------------------------------------


def limits(measured: Measured, receivers: float = 1.0) -> list[Limit]:
    """Return what breaks, the lowest limit first. Each process has its core for itself, and works all the time."""
    store, database = measured.micros("message-store", receivers), measured.micros("postgres", receivers)
    bridge, nats = measured.micros("xmpp-bridge", receivers), measured.micros("nats", receivers)
    kept = measured.sizes.stream_out * receivers
    found = [
        Limit(
            "one message-store",
            rate_of_batches(measured, 1.0, receivers),
            f"batches of {BATCH}, each its own {store:.0f} µs and PostgreSQL's {database:.0f} µs a message",
        ),
        Limit(
            "one lock of seq, whatever the number of stores",
            rate_of_batches(measured, 0.0, receivers),
            f"batches of {BATCH}, PostgreSQL's part under the lock",
        ),
        Limit(
            "TLIM_OUT is full",
            MAX_BYTES[StreamName.OUT] / (KEEP_S * kept),
            f"{KEEP_S / 60:.0f} minutes of {kept:,.0f} bytes a message in {MAX_BYTES[StreamName.OUT] / 2**30:.0f} GiB",
        ),
        Limit(
            f"{DELIVERY_SHARDS} bridges, one for each delivery shard",
            DELIVERY_SHARDS * 1e6 / bridge,
            f"{bridge:.0f} µs a message",
        ),
        Limit(
            "one NATS server, as if it used one core only",
            1e6 / nats,
            f"{nats:.0f} µs a message; it uses several, so it can do more",
        ),
    ]
    return sorted(found, key=lambda limit: limit.rate)


def rate_of_batches(measured: Measured, own_share: float, receivers: float = 1.0) -> float:
    """Return how many messages a second go through one writer after another, in full batches.

    `own_share`: how much of the store's own time counts; 0 if other stores can do theirs meanwhile.
    """
    waits = waits_of(measured)
    each = own_share * measured.micros("message-store", receivers) + measured.micros("postgres", receivers)
    fixed = waits.commit + own_share * waits.publish
    return BATCH / (fixed + BATCH * each / 1e6)


# --- what a target needs ----------------------------------------------------------------------------------------------


def plan(measured: Measured, target: Target, assumed: Assumed = Assumed()) -> Plan:  # noqa: B008 - it is immutable
    """Return how many of each process a target needs, and what goes over disks and networks."""
    sizes, receivers = measured.sizes, assumed.receivers

    def cores(process: str) -> int:
        return math.ceil(target.rate * measured.micros(process, receivers) / 1e6 / assumed.busy)

    by_cores = math.ceil(cores("ejabberd") / assumed.node_cores)
    memory = target.users * measured.memory["ejabberd"]
    nodes = max(by_cores, math.ceil(memory / (assumed.node_bytes * assumed.busy)))
    rows = target.rate * assumed.mean_share * DAY_S
    streams = sizes.stream_out * receivers * KEEP_S * target.rate
    in_nats = (sizes.nats_in + sizes.nats_out) * receivers
    return Plan(
        stores=math.ceil(target.rate / (rate_of_batches(measured, 1.0, receivers) * assumed.busy)),
        bridges=cores("xmpp-bridge"),
        ejabberd_nodes=nodes,
        ejabberd_node_bytes=memory / nodes,
        bridge_bytes=target.users * measured.memory["xmpp-bridge"],  # each bridge hears of every session
        postgres_cores=cores("postgres"),
        nats_cores=cores("nats"),
        table_bytes_a_day=rows * sizes.table,
        partitions_a_day=rows / PARTITION_SPAN,
        wal_bytes=target.rate * sizes.wal,
        stream_bytes=streams * assumed.copies,
        outage_s=MAX_BYTES[StreamName.IN] / (sizes.stream_in * target.rate),
        remembered_ids=target.rate * REMEMBERED_S * sizes.events * receivers,
        nats_bytes=target.rate * in_nats,
        network_bytes=target.rate * sizes.network * receivers,
        s3_bytes=target.rate * assumed.file_share * assumed.file_bytes,
        relogin_s=target.users / nodes * measured.login["xmpp-bridge"] / 1e6 / (1 - assumed.busy),
    )


# --- what is simulated ------------------------------------------------------------------------------------------------


def work_of(measured: Measured) -> Work:
    """Return what the simulation calls work. What is not of a further receiver belongs to the way in."""

    def on_the_way_in(process: str) -> float:
        return max(measured.message[process] - measured.receiver[process], 0.0) / 1e6

    return Work(
        server_in=on_the_way_in("ejabberd"),
        bridge_in=on_the_way_in("xmpp-bridge"),
        store=measured.message["message-store"] / 1e6,
        database=measured.message["postgres"] / 1e6,
        bridge_out=measured.receiver["xmpp-bridge"] / 1e6,
        server_out=measured.receiver["ejabberd"] / 1e6,
    )


def waits_of(measured: Measured) -> Waits:
    """Return how long a message waits under light load without a processor: its stages without their work."""
    work, stages = work_of(measured), {name: one / 1000 for name, one in measured.stages.items()}

    def rest(stage: str, *used: float) -> float:
        return max(stages[stage] - sum(used), 0.0)

    return Waits(
        accept=rest(Stage.ACCEPT, work.bridge_in),
        commit=rest(Stage.STORE, work.store, work.database),
        publish=stages[Stage.PUBLISH],
        deliver=rest(Stage.DELIVER, work.bridge_out),
        clients=rest(CLIENTS, work.server_in, work.server_out),
    )


def today(bridges: int = DELIVERY_SHARDS, server_cores: int = 64) -> Layout:
    """Return a layout of today's code: one store, as measured, and a bridge for each shard."""
    return Layout(server_cores, bridges, stores=1, one_lock=True, shards=DELIVERY_SHARDS, batch=BATCH)


def under_one_lock(measured: Measured, assumed: Assumed) -> Layout:
    """Return a layout with as many stores as are of use under one lock of seq: more would only wait for it."""
    rate = rate_of_batches(measured, 0.0)
    stores = math.ceil(rate * measured.message["message-store"] / 1e6 / assumed.busy)
    return _enough(measured, rate, assumed)._replace(stores=stores, one_lock=True)


def with_own_locks(measured: Measured, rate: float, assumed: Assumed) -> Layout:
    """Return a layout for a rate of messages to one person, with a log, a lock and a seq for each store."""
    return _enough(measured, rate, assumed)


def _enough(measured: Measured, rate: float, assumed: Assumed) -> Layout:
    needed = plan(measured, Target(0, math.ceil(rate)), assumed._replace(receivers=1.0))
    shards = max(needed.bridges, DELIVERY_SHARDS)
    cores = math.ceil(rate * measured.message["ejabberd"] / 1e6 / assumed.busy)
    return Layout(cores, shards, needed.stores, one_lock=False, shards=shards, batch=BATCH)

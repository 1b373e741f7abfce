"""What a message and a connected person cost, and the arithmetic from there to a million people.

One system with one store and one bridge is measured. Processor time of messages is of a full window: eight pairs, each
with 32 messages on their way. That of a further receiver is the slope between two groups, that of a login and of memory
the slope between numbers of people who are connected. From these figures `bench/capacity.py` computes, and
`bench/pipeline.py` simulates, what has not been run: every process with a core for itself.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from tlim_devstack import postgres
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until
from tlim_protocol.streams import StreamName

from bench import pipeline
from bench.capacity import (
    BATCH,
    Assumed,
    Measured,
    Plan,
    Sizes,
    Target,
    limits,
    plan,
    today,
    under_one_lock,
    waits_of,
    with_own_locks,
    work_of,
)
from bench.comparing import Effort, Figure, Section, interleaved, prose, table
from bench.fanout import WINDOW as GROUP_WINDOW
from bench.fanout import add_session
from bench.lanes import Room, RoomKind
from bench.latency import timed_run
from bench.load import Flood, LoadGenerator, Steady
from bench.one_to_one import SETTLE_S, WINDOW, Candidate, ready
from bench.systems import System, running_stack, tlim

LIGHT_RATE = 100.0
"""Messages a second at which stages are timed: nothing waits for anything else."""

GROUPS, SHORT_GROUPS = (5, 45), (3, 6)
CONNECTED, SHORT_CONNECTED = (100, 400, 700, 1_000), (10, 20, 30)
TARGETS = (Target(10_000, 1_000), Target(100_000, 10_000), Target(1_000_000, 100_000))
MEASURED_PARTS = ("ejabberd", "xmpp-bridge", "message-store", "nats", "postgres")
HOLDS_PEOPLE = ("ejabberd", "xmpp-bridge")

SIMULATED_MESSAGES = 50_000
"""In each simulated run: enough for a 99th percentile, and some seconds of processor time."""

SEED = 13


def measure(effort: Effort, home: Path) -> Section:
    """Measure one system, compute, and simulate."""
    is_short = effort.seconds < 5  # then it is only a proof that the bench runs
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack(home))
        system = tlim(stack)
        pairs = ready(system, opened)
        costs = _costs(stack, pairs, opened, SHORT_GROUPS if is_short else GROUPS, effort)
        sizes = _sizes(stack, pairs, effort)
        light = [timed_run(pairs, Steady(LIGHT_RATE, effort.seconds)).stages for _ in range(effort.repeats)]
        stages = {stage: Figure.of(one[stage] for one in light).median for stage in light[0]}
        logins, memory = _people(system, opened, SHORT_CONNECTED if is_short else CONNECTED)
    measured = Measured(
        _medians(costs["message"]), _medians(costs["receiver"]), _medians(logins), _medians(memory), stages, sizes
    )
    parts = (
        prose(__doc__),
        f"### What was measured\n\n{_measured(costs, logins, memory)}\n\n{_sizes_and_stages(measured)}",
        f"### What breaks first\n\n{_limits(measured)}",
        f"### How many of each\n\n{_plans(measured, Assumed())}",
        f"### The simulation\n\n{simulated(measured, Assumed())}",
    )
    return Section("The figures", "\n\n".join(parts))


# --- measuring --------------------------------------------------------------------------------------------------------

Figures = Mapping[str, Figure]


def _medians(figures: Figures) -> dict[str, float]:
    return {name: figure.median for name, figure in figures.items()}


def _costs(
    stack: Stack, pairs: Candidate, opened: ExitStack, groups: tuple[int, int], effort: Effort
) -> dict[str, Figures]:
    """Return µs a message to one person, and µs of a further receiver, by process."""
    rooms = [_group(stack, pairs.system, opened, members) for members in groups]
    small, large = (f"{members} members" for members in groups)
    runs = interleaved(
        effort.repeats,
        {
            "pairs": partial(pairs.run, Flood(WINDOW, effort.seconds)),
            small: partial(rooms[0].run, Flood(GROUP_WINDOW, effort.seconds)),
            large: partial(rooms[1].run, Flood(GROUP_WINDOW, effort.seconds)),
        },
    )
    more = groups[1] - groups[0]
    slopes = {
        part: Figure.of(  # below zero by chance only, where a receiver costs next to nothing
            max(one.cost[part] - other.cost[part], 0.0) / more
            for one, other in zip(runs[large], runs[small], strict=True)
        )
        for part in MEASURED_PARTS
    }
    return {
        "message": {part: Figure.of(run.cost[part] for run in runs["pairs"]) for part in MEASURED_PARTS},
        "receiver": slopes,
    }


def _group(stack: Stack, system: System, opened: ExitStack, members: int) -> Candidate:
    people = system.people(members)
    room = Room(RoomKind.SESSION, asyncio.run(add_session(stack, people)))
    return Candidate(system, opened.enter_context(LoadGenerator(system.target, people, room)))


def _people(system: System, opened: ExitStack, steps: Sequence[int]) -> tuple[Figures, Figures]:
    """Let more and more people log in; return µs a login, and bytes a connected person, by process."""
    logins: dict[str, list[float]] = {part: [] for part in MEASURED_PARTS}
    memory: dict[str, list[float]] = {part: [] for part in HOLDS_PEOPLE}
    connected = 0
    for number, wanted in enumerate(steps):
        people = system.people(wanted - connected)
        time.sleep(SETTLE_S)
        cpu, used = system.processor_time(), {part: _memory(system, part) for part in HOLDS_PEOPLE}
        opened.enter_context(LoadGenerator(system.target, people))
        time.sleep(SETTLE_S)
        after = system.processor_time()
        if number:  # the first people fill what processes have ready for everybody
            for part in MEASURED_PARTS:
                logins[part].append((after[part] - cpu[part]) * 1e6 / len(people))
            for part in HOLDS_PEOPLE:
                memory[part].append(max(_memory(system, part) - used[part], 0) / len(people))
        connected = wanted
    return {part: Figure.of(values) for part, values in logins.items()}, {
        part: Figure.of(values) for part, values in memory.items()
    }


def _memory(system: System, part: str) -> int:
    """Return the bytes that a process and its children have for themselves."""
    process = psutil.Process(system.processes[part])
    return sum(int(one.memory_full_info().uss) for one in (process, *process.children(recursive=True)))


def _sizes(stack: Stack, pairs: Candidate, effort: Effort) -> Sizes:
    """Let the pairs write, and see what grows."""
    _let_the_index_follow(pairs.system)
    before = _counters(stack)
    with ThreadPoolExecutor(1) as beside:
        flood = beside.submit(pairs.run, Flood(WINDOW, effort.seconds))
        seen = []  # of TLIM_IN, which is emptied behind the store: what is in it at some moments
        while not flood.done():
            seen.append(_stream(stack, StreamName.IN))
            time.sleep(effort.seconds / 20)
        sent = flood.result().outcome.sent
    _let_the_index_follow(pairs.system)
    after = _counters(stack)
    fullest, out = max(seen, key=lambda state: state["messages"]), _stream(stack, StreamName.OUT)
    grown = {name: (after[name] - before[name]) / sent for name in after}
    return Sizes(
        table=grown["table"],
        wal=grown["wal"],
        stream_in=fullest["bytes"] / max(fullest["messages"], 1),
        stream_out=grown["events"] * out["bytes"] / out["messages"],
        events=grown["events"],
        nats_in=grown["nats_in"],
        nats_out=grown["nats_out"],
        network=grown["network"],
    )


def _let_the_index_follow(system: System) -> None:
    """Wait until the search index has everything: its rows count as well."""
    name = "tlim_message_store_search_lag_messages"

    def follows() -> bool:
        found = [
            sample.value
            for url in system.metrics
            for family in text_string_to_metric_families(httpx.get(url, trust_env=False).text)
            for sample in family.samples
            if sample.name == name
        ]
        return not any(found)

    wait_until(follows, "the search index", timeout=600)


def _counters(stack: Stack) -> dict[str, float]:
    """Return numbers that only grow."""
    asked = "SELECT pg_database_size('message_store'); SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0');"
    table_bytes, wal_bytes = map(float, postgres.run_sql(stack.postgres_admin, asked).split())
    varz = _monitor(stack, "varz")
    return {
        "table": table_bytes,
        "wal": wal_bytes,
        "events": _stream(stack, StreamName.OUT)["last_seq"],
        "nats_in": varz["in_bytes"],
        "nats_out": varz["out_bytes"],
        "network": psutil.net_io_counters(pernic=True)["lo"].bytes_sent,  # of the machine: nothing else may run
    }


def _stream(stack: Stack, name: StreamName) -> dict[str, Any]:
    accounts = _monitor(stack, "jsz?streams=true")["account_details"]
    state: dict[str, Any] = next(
        one["state"] for account in accounts for one in account["stream_detail"] if one["name"] == name
    )
    return state


def _monitor(stack: Stack, page: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{stack.ports.nats_monitor}/{stack.credentials.nats_monitor}/{page}"
    said: dict[str, Any] = httpx.get(url, trust_env=False).raise_for_status().json()
    return said


# --- what is told -----------------------------------------------------------------------------------------------------


def _measured(costs: Mapping[str, Figures], logins: Figures, memory: Figures) -> str:
    rows = [
        (
            part,
            costs["message"][part].told(),
            costs["receiver"][part].told(1),
            logins[part].told(),
            Figure(*(one / 1000 for one in memory[part])).told(1) if part in memory else "",
        )
        for part in MEASURED_PARTS
    ]
    total = Figure(*(sum(figure[place] for figure in costs["message"].values()) for place in range(3)))
    head = ("process", "µs a message, 1:1", "µs a further receiver", "µs a login", "kB a connected person")
    return table(head, [*rows, ("all", f"{total.median:,.0f}", "", "", "")])


def _sizes_and_stages(measured: Measured) -> str:
    sizes = measured.sizes
    rows = [
        ("PostgreSQL, with all indexes", f"{sizes.table:,.0f}"),
        ("PostgreSQL's write-ahead log", f"{sizes.wal:,.0f}"),
        ("`TLIM_IN`, until it is stored", f"{sizes.stream_in:,.0f}"),
        (f"`TLIM_OUT`, in {sizes.events:.1f} events", f"{sizes.stream_out:,.0f}"),
        ("into NATS", f"{sizes.nats_in:,.0f}"),
        ("out of NATS", f"{sizes.nats_out:,.0f}"),
        ("over loopback: all processes, clients included", f"{sizes.network:,.0f}"),
    ]
    stages = [(stage, f"{one:.1f}") for stage, one in measured.stages.items()]
    light = table((f"stage at {LIGHT_RATE:.0f} messages/s", "mean, ms"), stages)
    return f"{table(('bytes a message, 1:1', ''), rows)}\n\n{light}"


def _limits(measured: Measured) -> str:
    rows = [(one.what, f"{one.rate:,.0f}", one.because) for one in limits(measured)]
    said = "Messages to one person each, today's code and settings, every process with a core for itself:"
    return f"{said}\n\n{table(('limit', 'messages/s', 'because'), rows)}"


PLANNED: Sequence[tuple[str, Callable[[Plan], str]]] = (
    ("message-stores", lambda one: f"{one.stores:,}"),
    ("bridges, and at least as many delivery shards", lambda one: f"{one.bridges:,}"),
    ("ejabberd nodes", lambda one: f"{one.ejabberd_nodes:,}"),
    ("memory of a node for its people", lambda one: f"{one.ejabberd_node_bytes / 1e9:,.1f} GB"),
    ("memory of each bridge for people", lambda one: f"{one.bridge_bytes / 1e9:,.2f} GB"),
    ("cores for NATS, without replicas", lambda one: f"{one.nats_cores:,}"),
    ("cores for PostgreSQL", lambda one: f"{one.postgres_cores:,}"),
    ("PostgreSQL, disk a day", lambda one: f"{one.table_bytes_a_day / 1e9:,.0f} GB"),
    ("partitions of the log a day", lambda one: f"{one.partitions_a_day:,.1f}"),
    ("write-ahead log, to each standby", lambda one: f"{one.wal_bytes / 1e6:,.0f} MB/s"),
    ("`TLIM_OUT`, all copies", lambda one: f"{one.stream_bytes / 1e9:,.0f} GB"),
    ("the store may be away, until `TLIM_IN` is full", lambda one: f"{one.outage_s:,.0f} s"),
    ("message ids that NATS remembers", lambda one: f"{one.remembered_ids / 1e6:,.0f} million"),
    ("network of NATS, without replicas", lambda one: f"{one.nats_bytes * 8 / 1e9:,.2f} Gbit/s"),
    ("network of everything", lambda one: f"{one.network_bytes * 8 / 1e9:,.2f} Gbit/s"),
    ("S3", lambda one: f"{one.s3_bytes / 1e6:,.0f} MB/s"),
    ("a node dies: a bridge hears of all its people's logins within", lambda one: f"{one.relogin_s:,.0f} s"),
)


def _plans(measured: Measured, assumed: Assumed) -> str:
    plans = [plan(measured, target, assumed) for target in TARGETS]
    heads = [f"{target.users:,} people, {target.rate:,}/s" for target in TARGETS]
    rows = [(what, *(told(one) for one in plans)) for what, told in PLANNED]
    said = (
        f"Assumed, not measured: {assumed.receivers:g} receivers a message on average; {assumed.busy:.0%} of a core is "
        f"planned for; nodes of {assumed.node_cores} cores and {assumed.node_bytes / 2**30:.0f} GiB; the day's mean is "
        f"{assumed.mean_share:.0%} of the peak; {assumed.file_share:.0%} of messages carry a file of "
        f"{assumed.file_bytes / 1000:.0f} kB; streams have {assumed.copies} copies. Rates are of the peak. "
        "A message is whatever becomes a row of the log, receipts included."
    )
    return f"{said}\n\n{table(('', *heads), rows)}"


def simulated(measured: Measured, assumed: Assumed) -> str:
    """Simulate today's code around the limit of one store, and layouts for the largest target."""
    work, waits = work_of(measured), waits_of(measured)
    by_name = {one.what: one.rate for one in limits(measured)}
    store, lock = by_name["one message-store"], by_name["one lock of seq, whatever the number of stores"]
    largest = TARGETS[-1].rate
    under_one, own = under_one_lock(measured, assumed), with_own_locks(measured, largest, assumed)
    cases = [
        *((f"today, {share:.0%} of the store's limit", today(), store * share) for share in (0.5, 0.9, 1.1)),
        *(
            (f"{under_one.stores} stores under one lock, {share:.0%} of its limit", under_one, lock * share)
            for share in (0.9, 1.1)
        ),
        (f"{own.stores} stores, each with a lock of its own, and {own.bridges} bridges", own, largest),
    ]
    rows = []
    for name, layout, rate in cases:
        run = pipeline.Pipeline(layout, work, waits, SEED).run(rate, SIMULATED_MESSAGES / rate)
        latencies = (f"{run.latency(share) * 1000:,.0f}" for share in (50, 99))
        busy = (f"{run.busy[kind]:.0%}" for kind in ("lock of seq", "xmpp-bridge"))
        rows.append((name, f"{rate:,.0f}", f"{run.rate:,.0f}", *latencies, f"{run.batch:,.0f}", *busy, run.longest))
    head = ("layout", "offered/s", "reached/s", "p50, ms", "p99, ms", "messages a batch", "lock busy", "bridges busy")
    said = (
        f"{SIMULATED_MESSAGES:,} messages to one person each, at random times, in each row. `waits at`: where most "
        f"messages were when it ended. A store takes what is there, up to {BATCH}; full batches mean that it cannot do "
        "more."
    )
    return f"{said}\n\n{table((*head, 'waits at'), rows)}"

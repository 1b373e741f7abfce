"""The arithmetic and the simulation behind docs/scaling.md, and what that page says of the code."""

import ast
import math
import random
import re
import statistics
from functools import partial
from pathlib import Path

import pytest
from tlim_runtime.tracing import Stage

from bench.capacity import (
    BATCH,
    Assumed,
    Measured,
    Sizes,
    Target,
    limits,
    plan,
    rate_of_batches,
    today,
    under_one_lock,
    waits_of,
    with_own_locks,
    work_of,
)
from bench.latency import CLIENTS
from bench.pipeline import Clock, Layout, Pipeline, Simulated, Station

ROOT = Path(__file__).parents[1]
STORE = ROOT / "services" / "message-store" / "src" / "message_store"

MEASURED = Measured(
    message={"ejabberd": 250.0, "xmpp-bridge": 200.0, "message-store": 150.0, "nats": 80.0, "postgres": 50.0},
    receiver={"ejabberd": 100.0, "xmpp-bridge": 50.0, "message-store": 2.0, "nats": 5.0, "postgres": 0.0},
    login={"ejabberd": 20_000.0, "xmpp-bridge": 1_000.0, "message-store": 1_000.0, "nats": 100.0, "postgres": 500.0},
    memory={"ejabberd": 100_000.0, "xmpp-bridge": 1_000.0},
    stages={Stage.ACCEPT: 2.0, Stage.STORE: 3.2, Stage.PUBLISH: 1.0, Stage.DELIVER: 2.05, CLIENTS: 1.25},
    sizes=Sizes(1_000.0, 2_000.0, 800.0, 2_000.0, 1.8, 3_000.0, 5_000.0, 12_000.0),
)


# --- the simulation ---------------------------------------------------------------------------------------------------


def _mean_wait(load: float, seed: int) -> float:
    """Return how long jobs of one second wait on average for one server, when they come at random times."""
    clock, chance, waited = Clock(), random.Random(seed), list[float]()  # noqa: S311 - a simulation
    station, at = Station(clock), 0.0

    def begins(came: float) -> None:
        station.take(1.0, lambda: waited.append(clock.now - came - 1.0))

    for _ in range(5_000):
        at += chance.expovariate(load)
        clock.after(at, partial(begins, at))
    clock.run()
    return statistics.fmean(waited)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_queue_waits_as_long_as_the_formula_of_pollaczek_and_khinchine_says(load: float) -> None:
    means = [_mean_wait(load, seed) for seed in range(12)]
    confidence = 3 * statistics.stdev(means) / math.sqrt(len(means))
    assert statistics.fmean(means) == pytest.approx(load / (2 * (1 - load)), abs=confidence)


def test_two_servers_do_twice_as_much_in_the_same_time() -> None:
    clock, done = Clock(), list[float]()
    station = Station(clock, servers=2)
    for _ in range(4):
        station.take(1.0, lambda: done.append(clock.now))
    clock.run()
    assert done == [1.0, 1.0, 2.0, 2.0]


def test_a_batch_takes_what_waits_and_holds_the_lock_for_all_of_it() -> None:
    clock, done = Clock(), list[float]()
    lock = Station(clock)
    stores = [Station(clock, fixed=1.0, most=3, inside=lock, held=2.0, held_each=0.5) for _ in range(2)]
    for store in stores:
        for _ in range(3):
            store.take(0.0, lambda: done.append(clock.now))
    clock.run()
    # each takes one job at once, and the two that came meanwhile as a batch; the lock is held by one of them at a time
    assert done == [3.5, 6.0, 9.0, 9.0, 12.0, 12.0]


def _run(layout: Layout, rate: float, messages: int = 6_000, seed: int = 1) -> Simulated:
    return Pipeline(layout, work_of(MEASURED), waits_of(MEASURED), seed).run(rate, messages / rate)


def test_one_seed_gives_one_run() -> None:
    assert _run(today(), 1_000.0) == _run(today(), 1_000.0)
    assert _run(today(), 1_000.0) != _run(today(), 1_000.0, seed=2)


def test_a_message_that_meets_no_other_takes_as_long_as_its_stages() -> None:
    run = _run(today(), 1.0, messages=200)
    assert run.latency(50) * 1000 == pytest.approx(sum(MEASURED.stages.values()), abs=0.01)


def test_the_only_store_is_what_the_arithmetic_says_it_is() -> None:
    limit = rate_of_batches(MEASURED, 1.0)
    below, above = (_run(today(), share * limit, 20_000) for share in (0.9, 1.2))
    assert below.rate == pytest.approx(0.9 * limit, rel=0.05)
    assert above.rate == pytest.approx(limit, rel=0.07)
    assert above.longest == "message-store"
    assert BATCH > above.batch > 2 * below.batch
    assert above.latency(99) > 2 * below.latency(99)


def test_several_stores_under_one_lock_reach_its_limit_and_no_more() -> None:
    limit, layout = rate_of_batches(MEASURED, 0.0), under_one_lock(MEASURED, Assumed())
    assert _run(layout, 1.3 * limit, 30_000).rate == pytest.approx(limit, rel=0.08)
    assert _run(layout._replace(one_lock=False), 1.3 * limit, 20_000).rate > 1.15 * limit


def test_a_target_is_reached_with_what_the_arithmetic_gives_it() -> None:
    run = _run(with_own_locks(MEASURED, 20_000, Assumed()), 20_000, 20_000)
    assert run.rate == pytest.approx(20_000, rel=0.05)
    assert max(run.busy.values()) < 1


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def test_the_limit_of_a_writer_is_its_batch_over_the_time_of_a_batch() -> None:
    # 3 ms of commit and 1 ms of publishing, 500 times 150 µs of its own and 50 µs of PostgreSQL
    assert rate_of_batches(MEASURED, 1.0) == pytest.approx(500 / 0.104)
    assert rate_of_batches(MEASURED, 0.0) == pytest.approx(500 / 0.028)


def test_the_lowest_limit_comes_first() -> None:
    found = limits(MEASURED)
    assert [limit.rate for limit in found] == sorted(limit.rate for limit in found)
    assert [limit.what for limit in found[:2]] == ["TLIM_OUT is full", "one message-store"]
    assert [limit.rate for limit in found[:2]] == pytest.approx([2**32 / 600 / 2_000, 500 / 0.104])


def test_a_plan_counts_receivers_and_leaves_cores_room() -> None:
    planned = plan(MEASURED, Target(users=100_000, rate=6_000), Assumed(receivers=2.0, busy=0.6))
    assert planned.bridges == 3  # 6,000 times 250 µs are 1.5 cores, at 60 %
    assert planned.ejabberd_nodes == 1
    assert planned.ejabberd_node_bytes == pytest.approx(10e9)
    assert planned.table_bytes_a_day == pytest.approx(6_000 * 0.2 * 86_400 * 1_000)
    assert planned.wal_bytes == pytest.approx(12e6)


def test_people_alone_can_need_another_node() -> None:
    planned = plan(MEASURED, Target(users=1_000_000, rate=10))
    assert planned.ejabberd_nodes == 3  # 100 GB in nodes of 64 GiB, each filled to 60 %
    assert planned.bridge_bytes == pytest.approx(1e9)  # every bridge hears of everybody


# --- the page ---------------------------------------------------------------------------------------------------------


def _statements(file: Path) -> list[str]:
    """Return the names of the SQL statements at the top of a file."""
    return [
        target.id
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and re.search(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM) ", ast.unparse(node))
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def test_the_page_says_of_every_statement_what_becomes_of_it() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    files = [*STORE.rglob("*repository.py")]
    missing = [(file.name, name) for file in files for name in _statements(file) if f"`{name}`" not in page]
    assert len(files) > 8
    assert missing == []

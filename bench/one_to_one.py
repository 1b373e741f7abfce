"""Messages between two people, stored and delivered: how many a second, and what each costs.

Eight pairs write as fast as it goes, each with 32 messages on their way. For tlim a message is done when it has come
to the receiver, and `stored` to the sender. For the others it is done when it has come: mod_mam has stored it then.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.comparing import Bars, Effort, Figure, Section, interleaved, prose, ratio, table
from bench.load import Flood, Job, LoadGenerator, Outcome
from bench.systems import OrdinaryEjabberd, OrdinaryProsody, System, running_other, running_stack, tlim

PAIRS, WINDOW = 8, 32
SETTLE_S = 1.0
"""What a system does soon after a run, such as the search index, is still counted in its processor time."""

REFERENCE = "ejabberd with mod_mam"


class Run(NamedTuple):
    """What came of a job, and the processor time of each process, in µs a message."""

    outcome: Outcome
    cost: dict[str, float]


class Candidate(NamedTuple):
    """A system with people that are logged in."""

    system: System
    load: LoadGenerator

    def run(self, job: Job) -> Run:
        """Do a job, and see what it costs."""
        before = self.system.processor_time()
        outcome = self.load.run(job)
        time.sleep(SETTLE_S)
        after = self.system.processor_time()
        return Run(outcome, {name: (after[name] - before[name]) * 1e6 / outcome.sent for name in after})


@contextmanager
def candidates(home: Path, *, ceiling: bool) -> Iterator[list[Candidate]]:
    """Run all systems beside each other, each with its people. `ceiling`: also the servers that store nothing."""
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack(home / "tlim"))
        systems = [tlim(stack)]
        for name, kind, archive in (
            (REFERENCE, OrdinaryEjabberd, True),
            ("Prosody with mod_mam", OrdinaryProsody, True),
            ("ejabberd, nothing stored", OrdinaryEjabberd, False),
            ("Prosody, nothing stored", OrdinaryProsody, False),
        ):
            if archive or ceiling:
                place = home / f"other{len(systems)}"
                systems.append(opened.enter_context(running_other(name, kind, place, stack, archive=archive)))
        yield [ready(system, opened) for system in systems]


def ready(system: System, opened: ExitStack) -> Candidate:
    """Let the pairs log in."""
    return Candidate(system, opened.enter_context(LoadGenerator(system.target, system.people(2 * PAIRS))))


def measure(effort: Effort, home: Path) -> Section:
    """Compare all systems."""
    with candidates(home, ceiling=True) as systems:
        job = Flood(WINDOW, effort.seconds)
        found = interleaved(effort.repeats, {one.system.name: partial(one.run, job) for one in systems})
    rates = {name: Figure.of(run.outcome.rate for run in runs) for name, runs in found.items()}
    text = f"{prose(__doc__)}\n\n{_rates(found, rates)}\n\n{costs(found)}"
    return Section("One to one", text, Bars.of("messages/s", rates))


def _rates(found: dict[str, list[Run]], rates: dict[str, Figure]) -> str:
    rows = []
    for name, runs in found.items():
        ratios = Figure.of(
            ratio(run.outcome.rate, other.outcome.rate) for run, other in zip(runs, found[REFERENCE], strict=True)
        )
        busy = Figure.of(run.outcome.busy * 100 for run in runs)
        rows.append((name, rates[name].told(), ratios.told(2), f"{busy.median:.0f} %"))
    return table(("system", "messages/s", f"times {REFERENCE}", "load generator, of a core"), rows)


def costs(found: dict[str, Sequence[Run]] | dict[str, list[Run]]) -> str:
    """Return the table of processor time: a row for each process, a column for each system."""
    parts = {name: part_costs(runs) for name, runs in found.items()}
    processes = dict.fromkeys(process for costs in parts.values() for process in costs)
    rows = [
        (process, *(costs[process].told() if process in costs else "" for costs in parts.values()))
        for process in processes
    ]
    totals = (Figure.of(sum(run.cost.values()) for run in runs).told() for runs in found.values())
    return table(("processor time, µs a message", *found), [*rows, ("all", *totals)])


def part_costs(runs: Sequence[Run]) -> dict[str, Figure]:
    """Return what a message costs in each process that uses at least half a microsecond for it."""
    figures = {name: Figure.of(run.cost[name] for run in runs) for name in runs[0].cost}
    return {name: figure for name, figure in figures.items() if figure.median >= 0.5}

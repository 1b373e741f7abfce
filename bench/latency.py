"""How long a message takes from its sender to its receiver, at different loads, and where the time goes.

The load writes at a steady rate. The time counts from the moment at which a message is due, so it has the time for
which the sender was held up. The shares are of the throughput that each system reaches in the same run.

A stage is what the services themselves say of it, on average. It is timed from one service to the next: of a batch, the
message that waited longest. `clients and XMPP server` is the rest of the way on average.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tlim_runtime.tracing import Stage

from bench.comparing import Bars, Effort, Figure, Section, interleaved, percentile, prose, ratio, table
from bench.load import Flood, Steady
from bench.one_to_one import REFERENCE, WINDOW, Candidate, candidates

RATES, SHARES = (100.0, 300.0), (0.25, 0.5, 0.75)
PERCENTILES = (50, 95, 99)
STAGES = "tlim_message_stage_duration_seconds"
PLOTTED = f"{RATES[-1]:.0f}/s"
CLIENTS = "clients and XMPP server"
"""What remains of a latency besides the stages that our services measure."""


class Times(NamedTuple):
    """The latencies of a run, and the mean of each stage, all in milliseconds."""

    latencies: Sequence[float]
    stages: Mapping[str, float]


def measure(effort: Effort, home: Path) -> Section:
    """Measure all systems that store, at each load in turn."""
    with candidates(home, ceiling=False) as systems:
        by_name = {one.system.name: one for one in systems}
        flood = Flood(WINDOW, effort.seconds)
        floods = interleaved(effort.repeats, {name: partial(one.run, flood) for name, one in by_name.items()})
        highest = {name: Figure.of(run.outcome.rate for run in runs).median for name, runs in floods.items()}
        loads = {f"{rate:.0f}/s": dict.fromkeys(highest, rate) for rate in RATES} | {
            f"{share:.0%} of its throughput": {name: share * rate for name, rate in highest.items()} for share in SHARES
        }
        found = {
            load: interleaved(
                effort.repeats,
                {name: partial(timed_run, one, Steady(rates[name], effort.seconds)) for name, one in by_name.items()},
            )
            for load, rates in loads.items()
        }
    return Section("Latency", f"{prose(__doc__)}\n\n{_table(found)}\n\n{_stages(found)}", _plot(found[PLOTTED]))


def timed_run(candidate: Candidate, job: Steady) -> Times:
    """Do a job; return its latencies, and what the services say of the stages meanwhile."""
    before = _totals(candidate.system.metrics)
    latencies = [one * 1000 for one in candidate.run(job).outcome.latencies]
    after = _totals(candidate.system.metrics)
    stages = {
        stage: 1000 * (total - before[stage][0]) / max(count - before[stage][1], 1)
        for stage, (total, count) in after.items()
    }
    return Times(latencies, {**stages, CLIENTS: fmean(latencies) - sum(stages.values())})


def _totals(metrics: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return for each stage the seconds that messages were in it, and how often it was timed."""
    found: dict[str, dict[str, float]] = {}
    for url in metrics:
        for family in text_string_to_metric_families(httpx.get(url, trust_env=False).text):
            for sample in family.samples if family.name == STAGES else ():
                found.setdefault(sample.labels["stage"], {})[sample.name.rpartition("_")[2]] = sample.value
    return {stage.value: (found[stage]["sum"], found[stage]["count"]) for stage in Stage if stage in found}


# --- what is told -----------------------------------------------------------------------------------------------------


def _table(found: Mapping[str, Mapping[str, Sequence[Times]]]) -> str:
    rows = []
    for load, systems in found.items():
        medians = {name: Figure.of(percentile(run.latencies, 50) for run in runs) for name, runs in systems.items()}
        for name, runs in systems.items():
            cells = [Figure.of(percentile(run.latencies, share) for run in runs).told(1) for share in PERCENTILES]
            rows.append((load, name, *cells, f"{ratio(medians[name].median, medians[REFERENCE].median):.1f}"))
    return table(("load", "system", *(f"p{share}, ms" for share in PERCENTILES), f"p50, times {REFERENCE}"), rows)


def _stages(found: Mapping[str, Mapping[str, Sequence[Times]]]) -> str:
    own = {load: systems["tlim"] for load, systems in found.items()}
    rows = [
        (stage, *(Figure.of(run.stages[stage] for run in runs).told(1) for runs in own.values()))
        for stage in next(iter(own.values()))[0].stages
    ]
    return table(("tlim: stage, mean in ms", *own), rows)


def _plot(systems: Mapping[str, Sequence[Times]]) -> Bars:
    """Return bars that reach to the percentiles."""
    parts: dict[str, dict[str, float]] = {}
    for name, runs in systems.items():
        reached = 0.0
        parts[name] = {}
        for share in PERCENTILES:
            median = Figure.of(percentile(run.latencies, share) for run in runs).median
            parts[name][f"to p{share}"] = max(median - reached, 0.0)
            reached = max(median, reached)
    return Bars(f"ms at {PLOTTED}", parts, {})

"""The metrics of all services: their names and labels are what operators expect, and name nobody."""

import re
from pathlib import Path

import pytest
from tlim_runtime.metrics import Described
from tlim_runtime.metrics_page import described

SERVICES = ("session_api", "file_api", "message_store", "xmpp_bridge")
METRICS = [one for one, _ in described(SERVICES).values()]
_REGISTERED = re.compile(r'"(tlim_[a-z_]+)"')
_UNITS = ("_seconds", "_bytes", "_messages", "_rows", "_info", "_total", "_drift")
_STATES = {"_up", "_upkeep", "_groups", "_shards", "_in_flight", "_present", "_waiting"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.name)
def test_a_metric_is_named_as_prometheus_recommends(metric: Described) -> None:
    assert metric.name.startswith("tlim_")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith((*_UNITS, *_STATES))
    assert metric.kind != "histogram" or metric.name.endswith(("_duration_seconds", "_messages"))


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.name)
def test_no_label_names_a_person_a_session_or_a_message(metric: Described) -> None:
    few = {"method", "route", "status", "service", "version", "python", "consumer", "cause", "stage", "stream", "state"}
    assert set(metric.labels) <= few | {"outcome", "code", "shard", "certificate", "msg_type", "work"}


def test_every_metric_in_the_code_is_on_the_page() -> None:
    """A service may register more than its `declare` names: such a metric would be missing there."""
    root = Path(__file__).parent.parent
    sources = (*root.glob("libs/tlim-runtime/src/**/m*.py"), *root.glob("services/*/src/**/*.py"))
    registered = {name for source in sources for name in _REGISTERED.findall(source.read_text(encoding="utf-8"))}
    named = {metric.name for metric in METRICS}
    assert {name for name in registered if name.startswith("tlim_") and name.count("_") > 1} <= named | {"tlim_bridge_"}

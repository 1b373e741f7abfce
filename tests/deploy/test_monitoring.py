"""Prometheus' rules, Grafana's dashboard and the operations page ask for what exists; each alert is explained."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from tlim_admin import dashboard
from tlim_protocol.identity import DELIVERY_SHARDS
from tlim_protocol.streams import CONSUMERS, STORE_GROUPS, StreamName
from tlim_runtime.health import PROBES
from tlim_runtime.measures import OutboxMetrics
from tlim_runtime.metrics import Metrics
from tlim_runtime.metrics_page import described
from tlim_runtime.tracing import Stage

from tests.deploy.images import ROOT
from tests.deploy.told import SERVICES

RULES_FILE = ROOT / "deploy/prometheus/rules.yml"
TESTS_FILE = ROOT / "deploy/prometheus/rules_test.yml"
GROUPS: dict[str, list[dict[str, Any]]] = {
    group["name"]: group["rules"] for group in yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"]
}
RULES = {rule["alert"]: rule for rules in GROUPS.values() for rule in rules}
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
METRICS = {
    name: one for name, (one, _) in described(["session_api", "file_api", "message_store", "xmpp_bridge"]).items()
}
PROMETHEUS_OWN = {"up", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}
EXPRESSIONS = [*(rule["expr"] for rule in RULES.values()), *dashboard.expressions()]
PAGE = (ROOT / "services/message-store/src/message_store/operate/page/page.js").read_text(encoding="utf-8")
_NAMES = re.compile(r"\b(?:tlim|process)_[a-z_]+\b|\bup\b")
_PARTS = re.compile(r"(tlim_[a-z_]+)_(?:bucket|count|sum)")
_SELECTORS = re.compile(r"\b([a-z_]+)\{([^}]*)\}")
_MATCHERS = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')


def states_of_an_outbox() -> set[str]:
    metrics = Metrics()
    OutboxMetrics(metrics).note(1, 1)
    families = [family for family in metrics.registry.collect() if family.name == "tlim_outbox_rows"]
    return {sample.labels["state"] for family in families for sample in family.samples}


LABELS_OF_TARGETS = {"job", "service", "instance"}
VALUES = {
    "job": {yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]["job_name"]},
    "service": set(SERVICES),
    "consumer": {spec.durable for spec in CONSUMERS},
    "stream": set(StreamName) - {StreamName.LEASES},
    "state": states_of_an_outbox(),
    "certificate": {"xmpp", "gateway"},
    "route": PROBES,
    "status": {"500", "503"},
}
"""What a label can say. A label that is asked for by its value has to be here."""


def assert_it_can_be(metric: str, label: str, pattern: str) -> None:
    part = _PARTS.fullmatch(metric)
    own = set() if metric in PROMETHEUS_OWN else METRICS[metric if part is None else part[1]].labels
    assert label in {*LABELS_OF_TARGETS, *own}, f"{metric} has no {label}"
    for value in pattern.split("|"):
        assert any(re.fullmatch(value, known) for known in VALUES[label]), f"{label} is never {value}"


def assert_all_exist(expression: str) -> None:
    for name in _NAMES.findall(expression):
        part = _PARTS.fullmatch(name)
        if part is not None:
            assert METRICS[part[1]].kind == "histogram"
        else:
            assert name in METRICS or name in PROMETHEUS_OWN, name


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_asks_for_metrics_that_exist_and_has_its_entry_in_the_runbook(alert: str) -> None:
    assert_all_exist(RULES[alert]["expr"])
    assert f"\n## {alert}\n" in RUNBOOK
    assert RULES[alert]["annotations"]["summary"]


@pytest.mark.parametrize("expression", dashboard.expressions())
def test_the_dashboard_asks_for_metrics_that_exist(expression: str) -> None:
    assert_all_exist(expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_value_that_is_asked_for_is_one_that_its_label_can_have(expression: str) -> None:
    for metric, matchers in _SELECTORS.findall(expression):
        for label, pattern in _MATCHERS.findall(matchers):
            assert_it_can_be(metric, label, pattern)


def test_the_operations_page_asks_for_metrics_and_values_that_exist() -> None:
    of_durations = set(re.findall(r'\bof\("(tlim_\w+)"', PAGE))
    for name in re.findall(r'"(tlim_[a-z]+_\w+)"', PAGE):
        assert METRICS[name].kind == "histogram" if name in of_durations else METRICS[name].kind != "histogram", name
    chosen = re.findall(r'"(tlim_\w+)", \{ (\w+): "([^"]+)" \}', PAGE)
    assert len(chosen) == len(re.findall(r'\{ \w+: "[^"]+" \}\)', PAGE)), "a choice that is written otherwise"
    for metric, label, value in chosen:
        assert_it_can_be(metric, label, value)
    for value in re.findall(r'labels\.consumer [!=]== "([^"]+)"', PAGE):
        assert_it_can_be("tlim_consumer_lag_messages", "consumer", value)
    assert set(re.findall(r'report\.service [!=]== "([^"]+)"', PAGE)) <= VALUES["service"]
    stages = re.search(r"const STAGES = (\[.*\]);", PAGE)
    assert stages is not None
    assert json.loads(stages[1]) == list(Stage)


def test_rule_and_page_know_how_many_groups_stores_share() -> None:
    assert RULES["TlimNotAllIsStored"]["expr"].endswith(f" < {STORE_GROUPS + 1}")
    assert f'" of {STORE_GROUPS} groups"' in PAGE


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_no_probe_counts_as_a_request_of_somebody(expression: str) -> None:
    asked = re.findall(r"tlim_http_request_duration_seconds_\w+(.*?)\[", expression)
    left_out = [set(routes.split("|")) for routes in re.findall(r'route!~"([^"]*)"', expression)]
    assert left_out == [PROBES] * len(asked)


def test_the_dashboard_shows_every_message_stage_and_is_valid_for_grafana() -> None:
    panels = json.loads(dashboard.render())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    shown = "".join(dashboard.expressions())
    unused = {name for name in METRICS if name not in shown and f"{name}_bucket" not in shown}
    assert unused == {
        "tlim_build_info", "tlim_message_store_upkeep", "tlim_message_store_batch_messages", "tlim_stream_messages",
        "tlim_bridge_batch_duration_seconds", "tlim_file_api_scans_total", "tlim_file_api_scan_failures_total",
        "tlim_limit_counts_total", "tlim_work_failing_seconds",
    }  # fmt: skip


def test_symptoms_page_and_causes_warn() -> None:
    assert {rule["labels"]["severity"] for rule in GROUPS["symptoms"]} == {"page"}
    assert {rule["labels"]["severity"] for rule in GROUPS["causes"]} == {"warn"}


def test_the_runbook_has_no_entry_for_what_is_no_alert_and_no_shard_is_forgotten() -> None:
    assert set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == set(RULES)
    assert RULES["TlimShardWithoutBridge"]["expr"].endswith(f" < {DELIVERY_SHARDS}")


def test_every_service_is_missed_when_it_has_no_target_at_all() -> None:
    absent = re.findall(r'absent\(up{job="tlim", service="([\w-]+)"}\)', RULES["TlimServiceDown"]["expr"])
    assert set(absent) == set(SERVICES)


def test_a_gauge_that_an_alert_asks_for_is_missed_when_nobody_tells_it() -> None:
    by_itself = {name for one in RULES.values() if "vector(0)" in one["expr"] for name in _NAMES.findall(one["expr"])}
    missed = set(re.findall(r"absent\((tlim_\w+)", RULES["TlimSignMissing"]["expr"]))
    asked = {name for one in RULES.values() for name in _NAMES.findall(one["expr"])} & set(METRICS)
    assert missed == {name for name in asked - by_itself if METRICS[name].kind == "gauge"}


def test_each_alert_is_tested_both_silent_and_firing() -> None:
    silent: set[str] = set()
    firing: set[str] = set()
    for test in yaml.safe_load(TESTS_FILE.read_text(encoding="utf-8"))["tests"]:
        for one in test["alert_rule_test"]:
            (firing if one["exp_alerts"] else silent).add(one["alertname"])
    assert silent == firing == set(RULES)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (scripts/bootstrap prometheus)")
@pytest.mark.parametrize(
    "command", [("check", "rules", RULES_FILE), ("test", "rules", TESTS_FILE)], ids=lambda one: one[0]
)
def test_promtool_finds_the_rules_right(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *map(str, command)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    assert done.returncode == 0, done.stdout + done.stderr

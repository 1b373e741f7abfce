"""Prometheus' rules and Grafana's dashboard ask for metrics that exist; each alert is tested and explained."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from tlim_admin import dashboard
from tlim_protocol.identity import DELIVERY_SHARDS
from tlim_runtime.health import PROBES
from tlim_runtime.metrics_page import described

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
_NAMES = re.compile(r"\b(?:tlim|process)_[a-z_]+\b|\bup\b")
_PARTS = re.compile(r"(tlim_[a-z_]+)_(?:bucket|count|sum)")


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


@pytest.mark.parametrize("expression", [*(rule["expr"] for rule in RULES.values()), *dashboard.expressions()])
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
        "tlim_build_info", "tlim_message_store_leading", "tlim_message_store_batch_messages", "tlim_stream_messages",
        "tlim_bridge_batch_duration_seconds", "tlim_file_api_scans_total", "tlim_file_api_scan_failures_total",
        "tlim_limit_counts_total",
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

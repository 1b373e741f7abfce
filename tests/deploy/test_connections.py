"""SECURITY.md: its table of connections has a row for each port that a policy of any component opens."""

import re

import yaml

from tests.deploy.images import ROOT

DNS = 53


def test_whatever_a_policy_opens_is_in_the_table() -> None:
    files = (ROOT / "deploy/k8s").rglob("*.yaml")
    resources = [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    policies = [one["spec"] for one in resources if isinstance(one, dict) and one.get("kind") == "NetworkPolicy"]
    rules = [rule for spec in policies for side in ("ingress", "egress") for rule in spec.get(side, [])]
    opened = {port["port"] for rule in rules for port in rule["ports"]}
    assert {9090, 6222, 8000} <= opened
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    ports = re.findall(r"^\|[^|]+\|[^|]+\|([^|]*\d[^|]*)\|[^|]+\|[^|]+\|$", page, re.MULTILINE)
    assert opened <= {int(port) for cell in ports for port in re.findall(r"\d+", cell)} | {DNS}

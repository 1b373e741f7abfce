"""Prometheus' rules as its operator takes them: `python -m tests.deploy.prometheus_rule [--check]`."""

import sys
import textwrap

from tests.deploy.images import ROOT

RULES = ROOT / "deploy/prometheus/rules.yml"
TARGET = ROOT / "deploy/k8s/components/monitoring/rules.yaml"
HEAD = """\
# Written by `make docs` from deploy/prometheus/rules.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tlim
spec:
"""


def resource() -> str:
    """Return the resource: its spec is the whole file."""
    return HEAD + textwrap.indent(RULES.read_text(encoding="utf-8"), "  ")


def main() -> None:
    """Write the resource, or with --check compare it."""
    if "--check" not in sys.argv:
        TARGET.write_text(resource(), encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != resource():
        sys.stderr.write(f"{TARGET.name} is not what {RULES.name} says: run `make docs`\n")
        raise SystemExit(1)


if __name__ == "__main__":
    main()

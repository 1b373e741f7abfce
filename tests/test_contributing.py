"""CONTRIBUTING.md and `make help` say what CI installs and sets, and which files are generated."""

import re
from pathlib import Path

import pytest

from tests.deploy import prometheus_rule, settings_page
from tests.e2e import proofs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI = (ROOT / ".ci/run").read_text(encoding="utf-8")
CALLED = {"javac": "Java", "mvn": "Java", "clamd": "clamd", "chromium": "Chromium", "promtool": "Prometheus"}
"""Programs that CI looks for → what people call them."""


def row(command: str) -> str:
    (found,) = re.findall(rf"^\| `{re.escape(command)}` \|(.*)\|$", PAGE, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("program", re.findall(r"command -v (\w+)", CI))
def test_what_ci_installs_is_said_where_tests_are_explained(program: str) -> None:
    (of_make,) = re.findall(r"^test:.*## (.*)$", MAKEFILE, re.MULTILINE)
    for text in (row("make test"), row(".ci/run"), of_make):
        assert CALLED[program] in text


def test_the_containers_of_ci_are_said_where_tests_are_explained() -> None:
    (of_make,) = re.findall(r"^test:.*## (.*)$", MAKEFILE, re.MULTILINE)
    for text in (row(".ci/run"), of_make):
        assert "containers" in text


def test_every_variable_that_ci_sets_is_explained() -> None:
    assert set(re.findall(r"^export (\w+)=", CI, re.MULTILINE)) == set(re.findall(r"\b(TLIM_E2E_\w+)=always", PAGE))


def test_every_generated_file_is_named() -> None:
    (dashboard,) = re.findall(r"^DASHBOARD := (\S+)$", MAKEFILE, re.MULTILINE)
    written = set(re.findall(r"-m tlim_\w+\.\w+ (docs/\S+)", MAKEFILE)) | {dashboard}
    written |= {str(page.relative_to(ROOT)) for page in (settings_page.PAGE, prometheus_rule.TARGET, proofs.PAGE)}
    written |= {"services/*/openapi.json", "deploy/caddy/openapi.json"}
    assert set(re.findall(r"[\w*/]+\.(?:md|json|yaml)", row("make docs openapi proofs"))) == written

"""deploy/compose/README.md: what an operator adds by its lines fits what is there."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.images import ROOT
from tests.deploy.pages import shown, to_type

README = ROOT / "deploy/compose/README.md"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / name).read_text(encoding="utf-8"))
    return found


def test_a_file_of_the_operator_s_takes_the_place_of_prometheus_configuration() -> None:
    ((name, override),) = shown(README, "services").items()
    (mounted,) = override["volumes"]
    ours = read("compose/observability.yml")["services"][name]
    source, target, mode = mounted.split(":")
    assert f"--config.file={target}" in ours["command"]
    assert mode == "ro"
    assert not source.startswith("./deploy/"), "an upgrade would replace it"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (scripts/bootstrap prometheus)")
def test_prometheus_takes_the_copy_with_an_alertmanager(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy/prometheus", tmp_path, dirs_exist_ok=True)
    with (tmp_path / "prometheus.yml").open("a", encoding="utf-8") as file:
        yaml.safe_dump({"alerting": shown(README, "alerting")}, file)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "deploy/compose").glob("*.yml")), ids=lambda path: path.stem)
def test_the_page_says_of_each_override_whether_it_has_run(file: Path) -> None:
    _, _, said = README.read_text(encoding="utf-8").partition("## What has run, and where")
    ran, _, not_run = said.partition("\nNot run: ")
    assert (f"`{file.name}`" in ran) is not (f"`{file.name}`" in not_run)


def test_the_lines_of_the_first_message_ask_what_the_gateway_answers() -> None:
    described = json.loads((ROOT / "deploy/caddy/openapi.json").read_text(encoding="utf-8"))["paths"]
    lines = to_type(README, "A first message")
    asked = re.findall(r"localhost:9090(/\S+)", lines)
    assert asked == ["/v1/users/import", "/v1/messages", "/v1/tokens", "/v1/conversations/system/messages"]
    assert {one.replace("/system/", "/{conversation}/") for one in asked} <= described.keys()


def test_a_grafana_in_the_named_network_reaches_prometheus() -> None:
    (network,) = re.findall(r"--network tlim_(\w+)", README.read_text(encoding="utf-8"))
    (source,) = read("grafana/provisioning/datasources/tlim.yml")["datasources"]
    prometheus = read("compose/observability.yml")["services"]["prometheus"]
    assert network in prometheus["networks"]
    assert source["url"] == "http://prometheus:9090"

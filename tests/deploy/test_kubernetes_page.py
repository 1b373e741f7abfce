"""deploy/k8s/README.md: what it tells an operator to type fits what the overlays apply."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.deploy.pages import shown
from tests.deploy.rendering import DEPLOY, Resource, addresses, containers, named, pods
from tests.deploy.told import SERVICES, SETTINGS, assert_all_is_read

README = DEPLOY / "k8s/README.md"
PAGE = README.read_text(encoding="utf-8")


def test_kubectl_leads_to_every_port_of_the_doors(local: list[Resource]) -> None:
    lines = re.findall(r"port-forward service/(\w+) ([\d ]+) &$", PAGE, re.MULTILINE)
    led = {name: [int(port) for port in ports.split()] for name, ports in lines}
    services = named(local, "Service")
    assert led == {name: [port["port"] for port in services[name]["spec"]["ports"]] for name in ("gateway", "xmpp")}


def test_what_asks_for_a_token_is_the_same_on_every_page(local: list[Resource]) -> None:
    deployments = named(local, "Deployment")
    for page in (PAGE, (DEPLOY.parent / "docs/runbook.md").read_text(encoding="utf-8")):
        (asked,) = {(where, what) for where, what in re.findall(r"exec deploy/(\S+) -- python3 -m (\S+)", page)}
        assert asked[0] in deployments
        assert asked == ("xmpp-bridge", "xmpp_bridge.admin_token")


def as_the_page_says(_overlay: Path, kustomization: Resource) -> None:
    kustomization["patches"] = [*kustomization.get("patches", []), *shown(README, "patches", "Another setting")]


def with_a_login(_overlay: Path, kustomization: Resource) -> None:
    patches = shown(README, "patches", "Images from a registry of yours")
    kustomization["patches"] = [*kustomization.get("patches", []), *patches]


@pytest.mark.parametrize(
    ("overlay", "components"), [("local", ()), ("production", ("backup-volume", "backup-schedule"))]
)
def test_every_pod_gets_its_image_with_the_login_that_the_page_shows(
    render: Callable[..., list[Resource]], overlay: str, components: tuple[str, ...]
) -> None:
    (login,) = re.findall(r"create secret docker-registry (\S+)", PAGE)
    resources = render(overlay, components, with_a_login)
    assert len(named(resources, "CronJob")) == (2 if components else 1)
    for name, pod in pods(resources):
        assert pod.get("imagePullSecrets") == [{"name": login}], name


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_a_setting_that_is_added_as_the_page_says_is_read(render: Callable[..., list[Resource]], overlay: str) -> None:
    def told(resources: list[Resource]) -> dict[str, list[str]]:
        return {name: [env["name"] for env in one["spec"]["template"]["spec"]["containers"][0]["env"]]
                for name, one in named(resources, "Deployment").items()}  # fmt: skip

    before, after = told(render(overlay)), told(render(overlay, (), as_the_page_says))
    added = {name: set(after[name]) - set(before[name]) for name in after}
    assert {name for name, variables in added.items() if variables} == set(SERVICES)
    for name in SERVICES:
        assert_all_is_read(SETTINGS[name], after[name])
        assert len(after[name]) == len(before[name]) + len(added[name]), "a variable was there already"


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_every_address_of_an_overlay_is_used(render: Callable[..., list[Resource]], overlay: str) -> None:
    resources = render(overlay, ("tracing",) if overlay == "production" else ())
    used = {one["valueFrom"]["configMapKeyRef"]["key"] for _, pod in pods(resources) for container in containers(pod)
            for one in container.get("env", []) if "valueFrom" in one}  # fmt: skip
    assert addresses(resources).keys() == used


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_jobs_and_images_are_of_one_release(overlay: str) -> None:
    text = (DEPLOY / "k8s/overlays" / overlay / "kustomization.yaml").read_text(encoding="utf-8")
    kustomization = yaml.safe_load(text)
    (transformer,) = kustomization["transformers"]
    assert {f"-{one['newTag']}" for one in kustomization["images"]} == {yaml.safe_load(transformer)["suffix"]}
    assert text.count("newTag: *release") == len(kustomization["images"]) - 1  # an operator changes one of them


def test_the_page_names_the_files_that_an_operator_of_production_fills_in() -> None:
    overlay = yaml.safe_load((DEPLOY / "k8s/overlays/production/kustomization.yaml").read_text(encoding="utf-8"))
    read = [name for one in overlay["configMapGenerator"] for name in (*one.get("envs", ()), *one.get("files", ()))]
    filled = {name.rpartition("=")[2] for name in read} | {"kustomization.yaml"}
    filled -= {"secrets/postgres-ca.pem"}
    (table,) = re.findall(r"Fill in two files there:\n\n(.*?)\n\n", PAGE, re.DOTALL)
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == filled

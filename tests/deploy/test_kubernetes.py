"""The manifests as an operator applies them: rendered by kustomize, and compared with what the code says."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from tlim_admin import secret_files
from tlim_protocol.streams import STREAMS
from tlim_runtime.provision import ProvisionSettings
from tlim_runtime.settings import DatabaseLogin

from tests.deploy import told
from tests.deploy.images import ROOT, locked_images
from tests.deploy.told import SERVICES, assert_all_is_read, assert_the_gateway_reads

DEPLOY = ROOT / "deploy"
RELEASES = ("1.35", "1.36", "1.37")
SETTINGS: told.SettingsByName = {**told.SETTINGS, "wait-for-tables": DatabaseLogin, "provision": ProvisionSettings}
PLAIN = ("Namespace", "ServiceAccount", "ConfigMap", "Secret")  # with little to get wrong, and each costs time
WORKLOADS = ("Deployment", "StatefulSet", "Job")
Resource = dict[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


class Way(NamedTuple):
    """A connection that a policy lets through; anybody if `source` is empty."""

    source: str
    target: str
    port: int


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    """Return what `kubectl apply -k deploy/k8s/overlays/local` applies."""
    folder = tmp_path_factory.mktemp("deploy") / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets"))
    overlay = folder / "k8s" / "overlays" / "local"
    secret_files.write_missing(overlay / "secrets", "im.itonglian.com", os.getuid())
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """Yield name and pod of each workload; of a job the name without its release."""
    for resource in resources:
        if resource["kind"] in WORKLOADS:
            template = resource["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/name"], template["spec"]


def containers(pod: Resource) -> list[Resource]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(local: list[Resource], release: str) -> None:
    for resource in local:
        if resource["kind"] not in PLAIN:
            kubernetes_validate.validate(resource, release, strict=True)


def test_every_pod_is_confined(local: list[Resource]) -> None:
    for name, pod in pods(local):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, f"{name}: Kubernetes would add TLIM_… variables of its own"
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume], name


def test_every_container_is_confined_and_bounded(local: list[Resource]) -> None:
    for name, pod in pods(local):
        for container in containers(pod):
            security, resources = container["securityContext"], container["resources"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"]["drop"] == ["ALL"], name
            assert set(security["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}, name
            assert {"cpu", "memory"} <= set(resources["requests"]), name
            assert "memory" in resources["limits"], name


def test_every_image_is_ours_with_a_tag_or_one_of_the_lock(local: list[Resource]) -> None:
    images = {container["image"] for _, pod in pods(local) for container in containers(pod)}
    ours = {image for image in images if image.startswith("tlim/")}
    assert images - ours <= set(locked_images().values())
    assert {image.rpartition(":")[0] for image in ours} == {
        f"tlim/{name}" for name in (*SERVICES, "ejabberd", "admin")
    }  # fmt: skip


def test_everything_that_runs_on_is_probed(local: list[Resource]) -> None:
    for resource in local:
        if resource["kind"] in ("Deployment", "StatefulSet"):
            (container,) = resource["spec"]["template"]["spec"]["containers"]
            assert {"startupProbe", "readinessProbe"} <= set(container), resource["metadata"]["name"]


def test_no_probe_restarts_a_service_because_a_server_is_away(local: list[Resource]) -> None:
    for name, pod in pods(local):
        for container in pod["containers"]:
            liveness = container.get("livenessProbe", {}).get("httpGet", {})
            if name in SETTINGS and liveness:
                assert liveness["path"] == "/healthz", name


def test_every_service_can_lose_a_node(local: list[Resource]) -> None:
    deployments = {one["metadata"]["name"]: one for one in local if one["kind"] == "Deployment"}
    budgets = {one["metadata"]["name"] for one in local if one["kind"] == "PodDisruptionBudget"}
    assert budgets == set(deployments)
    for name, deployment in deployments.items():
        assert deployment["spec"]["replicas"] >= 2, name
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name


def test_what_our_processes_are_told_is_what_they_read(local: list[Resource]) -> None:
    seen = set()
    for _, pod in pods(local):
        for container in containers(pod):
            name = container["name"]
            if name not in SETTINGS:
                continue
            seen.add(name)
            assert_all_is_read(SETTINGS[name], [one["name"] for one in container["env"]])
    assert seen == set(SETTINGS)


def test_what_the_gateway_is_told_is_in_its_configuration(local: list[Resource]) -> None:
    (gateway,) = [pod for name, pod in pods(local) if name == "gateway"]
    assert_the_gateway_reads([one["name"] for one in gateway["containers"][0]["env"]])


def test_every_workload_has_the_secrets_that_it_reads_and_no_others(local: list[Resource]) -> None:
    secrets = {one["metadata"]["name"]: set(one["data"]) for one in local if one["kind"] == "Secret"}
    for name, pod in pods(local):
        of_volumes = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        of_volumes |= {source["secret"]["name"] for volume in pod["volumes"] for source in
                       volume.get("projected", {}).get("sources", []) if "secret" in source}  # fmt: skip
        assert of_volumes <= {name}, name
        read = {value.removeprefix("/run/secrets/") for container in containers(pod) for one in
                container.get("env", []) if (value := one.get("value", "")).startswith("/run/secrets/")}  # fmt: skip
        assert read <= secrets.get(name, set()), name
        if name in SETTINGS and name != "databases":
            assert read == secrets[name], name


def test_the_limits_of_jetstream_fit_on_its_volume(local: list[Resource]) -> None:
    (limit,) = re.findall(r"max_file_store: (\d+)GB", (DEPLOY / "nats" / "nats.conf").read_text())
    assert sum(stream.max_bytes for stream in STREAMS) <= int(limit) * 1000**3
    (nats,) = [one for one in local if one["kind"] == "StatefulSet" and one["metadata"]["name"] == "nats"]
    (claim,) = nats["spec"]["volumeClaimTemplates"]
    assert int(limit) <= int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))


def ways(local: list[Resource], side: str, peer: str) -> set[Way]:
    """Return what the policies let through on one side, by the names of workloads."""
    found = set()
    for resource in local:
        if resource["kind"] != "NetworkPolicy" or not resource["spec"]["podSelector"]:
            continue
        me = resource["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        assert resource["metadata"]["name"] == me
        assert resource["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in resource["spec"].get(side, []):
            others = [one["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for one in rule.get(peer, [])] or [""]
            for other in others:
                pair = (other, me) if side == "ingress" else (me, other)
                found |= {Way(*pair, port["port"]) for port in rule["ports"]}
    return found


def test_each_way_is_open_on_both_sides_and_in_the_table_and_no_other_is_open(local: list[Resource]) -> None:
    coming, going = ways(local, "ingress", "from"), ways(local, "egress", "to")
    assert all(way.target for way in going), "a workload may call anybody"
    open_doors = {(way.target, way.port) for way in coming if not way.source}
    assert {way for way in coming if way.source} == {way for way in going if (way.target, way.port) not in open_doors}
    rows = re.findall(
        r"^\| ([\w-]+) \| ([\w-]+) \| ([\d, ]+) \|$", (DEPLOY / "k8s" / "README.md").read_text(), re.MULTILINE
    )
    table = {Way("" if source == "anybody" else source, target, int(port))
             for source, target, several in rows for port in several.split(", ")}  # fmt: skip
    assert table == coming | going


def test_everything_is_closed_for_whatever_no_policy_names(local: list[Resource]) -> None:
    (closed,) = [one for one in local if one["kind"] == "NetworkPolicy" and not one["spec"]["podSelector"]]
    assert closed["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in closed["spec"]
    assert [port["port"] for rule in closed["spec"]["egress"] for port in rule["ports"]] == [53, 53]
    named = {one["metadata"]["name"] for one in local if one["kind"] == "NetworkPolicy"}
    assert {name for name, _ in pods(local)} <= named

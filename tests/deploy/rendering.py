"""What `kubectl apply` of an overlay sends, as data."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from tlim_admin import secret_files

from tests.deploy.images import ROOT
from tests.deploy.programs import program

DEPLOY = ROOT / "deploy"
RELEASES = ("1.35", "1.36", "1.37")
PLAIN = ("Namespace", "ServiceAccount", "ConfigMap", "Secret")  # with little to get wrong, and each costs time
OPERATORS = ("monitoring.coreos.com", "cert-manager.io", "gateway.networking.k8s.io", "postgresql.cnpg.io")
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")
CLAIMED = {"data"}  # volumes of StatefulSets, which have claims of their own
Resource = dict[str, Any]
Edit = Callable[[Path, Resource], None]
"""What an operator changes by hand: it is given the overlay's folder, and its kustomization to be changed."""


def rendered(overlay: str, folder: Path, components: Sequence[str] = (), edit: Edit | None = None) -> list[Resource]:
    """Return what an overlay with more components applies, in a copy of the folder with secrets of its own."""
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("secrets", "*.pem", "wheelhouse"))
    overlays = folder / "k8s" / "overlays"
    for one in ("local", "production"):
        secret_files.write_missing(overlays / one / "secrets", "im.itonglian.com", os.getuid())
    shutil.copy(overlays / "production/secrets/ca.pem", overlays / "production/secrets/postgres-ca.pem")
    if components or edit:
        file = overlays / overlay / "kustomization.yaml"
        kustomization = yaml.safe_load(file.read_text(encoding="utf-8"))
        kustomization.setdefault("components", []).extend(f"../../components/{one}" for one in components)
        if edit:
            edit(file.parent, kustomization)
        file.write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    command = [program("kubectl"), "kustomize", str(overlays / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def as_it_says(component: str) -> Edit:
    """Return the edit that a component's comment asks for: the secrets that it shows, and the job that it names."""

    def edit(_overlay: Path, kustomization: Resource) -> None:
        comment = (DEPLOY / f"k8s/components/{component}/kustomization.yaml").read_text(encoding="utf-8")
        secrets = "".join(f"{line}\n" for line in re.findall(r"^# {4}(.*)$", comment, re.MULTILINE))
        kustomization["secretGenerator"] += yaml.safe_load(secrets)
        kustomization["resources"] += re.findall(r"adds (\S+) to its resources", comment)

    return edit


def in_place_of_https(_overlay: Path, kustomization: Resource) -> None:
    """Take out of production what deploy/k8s/README.md says for something else that speaks TLS before the gateway."""
    kustomization["components"].remove("../../components/https")
    kustomization["patches"] = [one for one in kustomization["patches"] if one["target"]["name"] != "gateway"]


def pods(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """Yield name and pod of each workload; of a job the name without its release."""
    for resource in resources:
        if resource["kind"] in WORKLOADS:
            job = resource["spec"].get("jobTemplate", resource)  # of a CronJob
            template = job["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/name"], template["spec"]


def named(resources: Iterable[Resource], kind: str) -> dict[str, Resource]:
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == kind}


def containers(pod: Resource) -> list[Resource]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def assert_the_api_server_takes(resources: Iterable[Resource], release: str) -> None:
    """Each resource fits the schema of a release of Kubernetes; those of operators have none here."""
    for resource in resources:
        if resource["kind"] not in PLAIN and resource["apiVersion"].partition("/")[0] not in OPERATORS:
            kubernetes_validate.validate(resource, release, strict=True)


def assert_everything_is_there(resources: list[Resource]) -> None:
    """What a pod refers to is there: keys of a ConfigMap, volumes, Secrets, its ServiceAccount (a job has none)."""
    there = {
        (one["kind"], one["metadata"]["name"]): {*one.get("data", {})}
        for one in resources
        if one["kind"] in ("ConfigMap", "Secret", "ServiceAccount")
    }
    for name, pod in pods(resources):
        for container in containers(pod):
            for one in container.get("env", []):
                if "valueFrom" in one:
                    key = one["valueFrom"]["configMapKeyRef"]
                    assert key["key"] in there["ConfigMap", key["name"]], name
            mounted = {volume["name"] for volume in pod["volumes"]} | CLAIMED
            assert {one["name"] for one in container.get("volumeMounts", [])} <= mounted, name
        for volume in pod["volumes"]:
            config = volume.get("configMap", {"optional": True})
            assert config.get("optional") or ("ConfigMap", config["name"]) in there, name
            assert "secret" not in volume or ("Secret", volume["secret"]["secretName"]) in there, name
        assert ("ServiceAccount", pod.get("serviceAccountName")) in there or "restartPolicy" in pod, name


def assert_no_variable_is_used_before_it_is_set(resources: list[Resource]) -> None:
    """Each $(NAME) in a value stands behind NAME. Otherwise Kubernetes leaves it, and patches move variables."""
    for workload, pod in pods(resources):
        for container in containers(pod):
            known: set[str] = set()
            for one in container.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", one.get("value", ""))) <= known, f"{workload}: {one['name']}"
                known.add(one["name"])


def addresses(resources: list[Resource]) -> dict[str, str]:
    (found,) = [one for one in resources if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "addresses"]
    data: dict[str, str] = found["data"]
    return data

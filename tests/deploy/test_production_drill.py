"""`make e2e-k8s` with overlays/production: what it applies is an overlay that an operator could have filled in."""

import os
import re
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from tests.deploy.rendering import (
    DEPLOY,
    RELEASES,
    Resource,
    addresses,
    assert_everything_is_there,
    assert_no_variable_is_used_before_it_is_set,
    assert_the_api_server_takes,
    containers,
    named,
    pods,
)
from tests.e2e.clients.manifests import DOORS, NAMESPACE
from tests.e2e.clients.production import OUTSIDE, PRODUCTION, Production
from tests.e2e.clients.web import WEB_ORIGIN

NODE = "192.0.2.1"
NOTHING: Resource = {"resources": {"requests": {"cpu": "0m"}}}
PAGE = (DEPLOY / "k8s/README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drill") / "secrets"


@pytest.fixture(scope="module")
def drill(secrets: Path) -> dict[str, list[Resource]]:
    """Return what is applied, by its namespace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", "restored afterwards")
        system = Production(PRODUCTION, NODE, secrets)
        system.prepare()
        return {namespace: list(yaml.safe_load_all(text)) for namespace, text in system.rendered()}


@pytest.fixture(params=[NAMESPACE, OUTSIDE])
def half(request: pytest.FixtureRequest, drill: dict[str, list[Resource]]) -> list[Resource]:
    return drill[request.param]


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(half: list[Resource], release: str) -> None:
    assert_the_api_server_takes(half, release)


def test_everything_that_a_pod_refers_to_is_there(half: list[Resource]) -> None:
    assert_everything_is_there(half)
    assert_no_variable_is_used_before_it_is_set(half)


def test_the_servers_outside_are_ready_before_the_system_comes(drill: dict[str, list[Resource]]) -> None:
    assert list(drill) == [OUTSIDE, NAMESPACE]
    assert {name for name, _ in pods(drill[OUTSIDE])} == {"postgres", "s3", "bucket"}


def test_each_workload_is_as_often_there_as_in_production(
    drill: dict[str, list[Resource]], production: list[Resource]
) -> None:
    def replicas(resources: list[Resource]) -> dict[str, int]:
        return {name: one["spec"]["replicas"] for kind in ("Deployment", "StatefulSet")
                for name, one in named(resources, kind).items()}  # fmt: skip

    assert replicas(drill[NAMESPACE]) == replicas(production)
    assert {name for name, _ in pods(drill[NAMESPACE])} == {name for name, _ in pods(production)} | {"databases"}


def test_all_pods_and_a_job_beside_them_have_room_on_a_node_of_two_processors(
    drill: dict[str, list[Resource]],
) -> None:
    def requested(pod: Resource, which: str) -> int:
        return max(int(one["resources"]["requests"]["cpu"].removesuffix("m")) for one in pod.get(which, [NOTHING]))

    needs = {name: max(requested(pod, "containers"), requested(pod, "initContainers"))
             for resources in drill.values() for name, pod in pods(resources)}  # fmt: skip
    replicas = {name: one["spec"]["replicas"] for resources in drill.values() for kind in ("Deployment", "StatefulSet")
                for name, one in named(resources, kind).items()}  # fmt: skip
    assert sum(needs[name] * replicas.get(name, 1) for name in needs) <= 0.9 * 2000  # the rest is the node's own


def test_every_image_is_one_that_a_node_has_from_an_archive(
    drill: dict[str, list[Resource]], one_node: list[Resource]
) -> None:
    def images(resources: list[Resource]) -> set[str]:
        return {container["image"] for _, pod in pods(resources) for container in containers(pod)}

    assert images(drill[NAMESPACE]) | images(drill[OUTSIDE]) == images(one_node)


def test_the_servers_are_where_the_system_looks_for_them_at_ports_that_its_policies_open(
    drill: dict[str, list[Resource]],
) -> None:
    where, services = addresses(drill[NAMESPACE]), named(drill[OUTSIDE], "Service")
    assert where["postgres"] == f"postgres.{OUTSIDE}:{services['postgres']['spec']['ports'][0]['port']}"
    assert where["s3"] == f"https://s3.{OUTSIDE}"
    (door,) = services["s3"]["spec"]["ports"]
    (pod,) = [pod for name, pod in pods(drill[OUTSIDE]) if name == "s3"]
    assert (door["port"], door["nodePort"]) == (443, DOORS["files"])
    assert [one["containerPort"] for one in pod["containers"][0]["ports"]] == [443]  # a policy names the pod's port


def test_both_speak_tls_with_a_certificate_that_names_them_and_the_node(
    drill: dict[str, list[Resource]], secrets: Path
) -> None:
    assert addresses(drill[NAMESPACE])["postgres-options"] == "?sslmode=verify-full"
    certificate = x509.load_pem_x509_certificate((secrets / "outside.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {f"postgres.{OUTSIDE}", f"s3.{OUTSIDE}"} <= set(names.get_values_for_type(x509.DNSName))
    assert NODE in map(str, names.get_values_for_type(x509.IPAddress))
    told = {name: " ".join(pod["containers"][0]["args"]) for name, pod in pods(drill[OUTSIDE]) if name != "bucket"}
    assert "--ssl=on" in told["postgres"]
    assert "-s3.cert.file=" in told["s3"]
    (access,) = named(drill[OUTSIDE], "ConfigMap")["postgres-access"]["data"].values()
    assert "\nhost " not in access, "somebody may come without TLS"


def test_web_pages_of_the_stories_may_use_the_bucket(drill: dict[str, list[Resource]]) -> None:
    assert (
        addresses(drill[OUTSIDE])["cors-origins"] == addresses(drill[NAMESPACE])["cors-origins"] == f'["{WEB_ORIGIN}"]'
    )


def test_each_claim_has_a_volume_and_the_page_names_all_of_them(drill: dict[str, list[Resource]]) -> None:
    claims: set[tuple[str, str]] = set()
    volumes: dict[str, Resource] = {}
    for namespace, resources in drill.items():
        volumes |= {name: one["spec"] for name, one in named(resources, "PersistentVolume").items()}
        claims |= {
            (namespace, f"{claim['metadata']['name']}-{name}-{number}")
            for name, one in named(resources, "StatefulSet").items()
            for claim in one["spec"].get("volumeClaimTemplates", [])
            for number in range(one["spec"]["replicas"])
        }
    assert {(one["claimRef"]["namespace"], one["claimRef"]["name"]) for one in volumes.values()} == claims
    (deleted,) = re.findall(r"^kubectl delete pv (tlim-nats-0 .*)$", PAGE, re.MULTILINE)
    assert set(deleted.split()) == volumes.keys()
    (folders,) = set(re.findall(r"^for name in (.+); do [a-z]+ -[a-z] /var/lib/tlim/\$name; done", PAGE, re.MULTILINE))
    assert {f"/var/lib/tlim/{name}" for name in folders.split()} == {one["local"]["path"] for one in volumes.values()}


@pytest.mark.usefixtures("drill")
def test_a_second_run_has_the_same_secrets(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "restored afterwards")
    before = {file.name: file.read_bytes() for file in secrets.iterdir()}
    Production(PRODUCTION, NODE, secrets).prepare()
    assert {file.name: file.read_bytes() for file in secrets.iterdir()} == before
    assert os.environ["SSL_CERT_FILE"] == str(secrets / "trusted.pem")

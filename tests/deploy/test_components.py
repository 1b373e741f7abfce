"""Components that an overlay may add: rendered with `production`, and compared with what they belong to."""

import copy
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import message_store.app
import pytest
import session_api.app
import yaml
from pydantic import HttpUrl
from tlim_admin.doctor.postgres import NEEDED_CONNECTIONS
from tlim_protocol.identity import DELIVERY_SHARDS
from tlim_runtime.database import QUESTIONS_POOL
from tlim_runtime.settings import ServiceSettings

from tests.deploy.images import ROOT
from tests.deploy.programs import program
from tests.deploy.rendering import (
    DEPLOY,
    RELEASES,
    Resource,
    addresses,
    as_it_says,
    assert_everything_is_there,
    assert_no_variable_is_used_before_it_is_set,
    assert_the_api_server_takes,
    named,
    pods,
    rendered,
)
from tests.deploy.told import SERVICES, SETTINGS

BESIDES_READERS = {
    "session-api": session_api.app.OWN_POOL,
    "file-api": QUESTIONS_POOL,
    "message-store": message_store.app.OWN_POOL + 1,  # with the one that holds its locks
}
"""The connections of one process to PostgreSQL, besides those of `database_pool_size`."""
FOR_OPERATORS = 10
"""For migrations, the operator's command and people; PostgreSQL keeps three of them for superusers."""


@pytest.fixture(scope="module")
def all_of_them(render: Callable[..., list[Resource]]) -> list[Resource]:
    """Return production with all of these components at once."""
    components = ("autoscaling", "monitoring", "cert-manager", "tracing", "backup-volume")
    return render("production", components)


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(all_of_them: list[Resource], release: str) -> None:
    assert_the_api_server_takes(all_of_them, release)


def test_what_a_variable_is_made_of_stands_before_it(all_of_them: list[Resource]) -> None:
    assert_no_variable_is_used_before_it_is_set(all_of_them)


def test_every_deployment_is_scaled_by_its_autoscaler_alone_and_keeps_two_pods(all_of_them: list[Resource]) -> None:
    deployments, scalers = named(all_of_them, "Deployment"), named(all_of_them, "HorizontalPodAutoscaler")
    assert scalers.keys() == deployments.keys()
    for name, scaler in scalers.items():
        assert "replicas" not in deployments[name]["spec"], name
        assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert scaler["spec"]["minReplicas"] == 2, name
    assert scalers["xmpp-bridge"]["spec"]["maxReplicas"] == DELIVERY_SHARDS


def test_all_pods_at_once_and_one_more_of_each_have_connections_to_postgresql(all_of_them: list[Resource]) -> None:
    scalers = named(all_of_them, "HorizontalPodAutoscaler")
    nodes = named(all_of_them, "StatefulSet")["ejabberd"]["spec"]["replicas"]
    of_ejabberd = nodes * yaml.safe_load((DEPLOY / "ejabberd/cluster.yml").read_text(encoding="utf-8"))["sql_pool_size"]
    pools = {
        name: SETTINGS[name].model_fields["database_pool_size"].default + own for name, own in BESIDES_READERS.items()
    }
    most = sum((scalers[name]["spec"]["maxReplicas"] + 1) * pool for name, pool in pools.items()) + of_ejabberd
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    cnpg = (DEPLOY / "k8s/components/postgres-cnpg/cluster.yaml").read_text(encoding="utf-8")
    (allowed,) = {int(one) for one in re.findall(r'max_connections(?:=|: ")(\d+)', compose + cnpg)}
    assert most + FOR_OPERATORS <= allowed
    assert 2 * sum(pools.values()) + of_ejabberd + FOR_OPERATORS <= NEEDED_CONNECTIONS  # what the doctor asks for


def test_prometheus_finds_every_service_by_the_names_that_the_rules_ask_for(all_of_them: list[Resource]) -> None:
    (monitor,) = named(all_of_them, "PodMonitor").values()
    (chosen,) = monitor["spec"]["selector"]["matchExpressions"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (chosen["key"], set(chosen["values"])) == ("app.kubernetes.io/name", set(SERVICES))
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/part-of"
    for name, deployment in named(all_of_them, "Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert (labels["app.kubernetes.io/name"], labels["app.kubernetes.io/part-of"]) == (name, "tlim")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}


def test_prometheus_may_ask_whatever_it_finds(all_of_them: list[Resource]) -> None:
    (monitor,) = named(all_of_them, "PodMonitor").values()
    policy = named(all_of_them, "NetworkPolicy")["metrics"]["spec"]
    assert policy["podSelector"] == monitor["spec"]["selector"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == [8080]


def test_every_service_sends_its_traces_where_the_overlay_says_and_may_reach_the_collector(
    all_of_them: list[Resource],
) -> None:
    keys = {"TLIM_TRACES_URL": "traces-url", "TLIM_TRACES_SHARE": "traces-share"}
    told = {
        name: {one["name"]: one["valueFrom"]["configMapKeyRef"]["key"] for one in env if one["name"] in keys}
        for name, pod in pods(all_of_them)
        for env in [pod["containers"][0].get("env", [])]
    }
    assert {name for name, found in told.items() if found == keys} == set(SERVICES)
    assert {f"TLIM_{name}".upper() for name in ServiceSettings.model_fields} >= keys.keys()
    url = HttpUrl(addresses(all_of_them)["traces-url"])
    policy = named(all_of_them, "NetworkPolicy")["traces"]["spec"]
    (chosen,), (rule,) = policy["podSelector"]["matchExpressions"], policy["egress"]
    assert (set(chosen["values"]), rule["ports"]) == (set(SERVICES), [{"port": url.port}])


def test_the_rules_of_the_operator_are_those_of_prometheus(all_of_them: list[Resource]) -> None:
    (rules,) = named(all_of_them, "PrometheusRule").values()
    assert rules["spec"] == yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8"))


def test_the_certificate_is_for_the_domain_and_both_doors_read_it(all_of_them: list[Resource]) -> None:
    (certificate,) = named(all_of_them, "Certificate").values()
    secret = certificate["spec"]["secretName"]
    assert certificate["spec"]["dnsNames"] == [addresses(all_of_them)["xmpp-domain"]]
    assert certificate["spec"]["additionalOutputFormats"] == [{"type": "CombinedPEM"}]
    read = {}
    for name, pod in pods(all_of_them):
        mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0].get("volumeMounts", [])}
        folders = [mounts[one["name"]] for one in pod["volumes"] if one.get("secret", {}).get("secretName") == secret]
        told = [one.get("value", "") for one in pod["containers"][0].get("env", [])]
        if folders:
            read[name] = {one.removeprefix(f"{folders[0]}/") for one in told if one.startswith(f"{folders[0]}/")}
    assert read == {"gateway": {"tls.crt", "tls.key"}, "ejabberd": {"tls-combined.pem"}}


def test_who_answers_for_a_certificate_can_be_asked(all_of_them: list[Resource]) -> None:
    policy = named(all_of_them, "NetworkPolicy")["acme-solver"]["spec"]
    assert policy["podSelector"] == {"matchLabels": {"acme.cert-manager.io/http01-solver": "true"}}
    assert policy["ingress"] == [{"ports": [{"port": 8089}]}]
    assert policy["policyTypes"] == ["Ingress"]  # what it calls stays closed


def test_nobody_checks_a_certificate_of_cert_manager_against_the_self_made_authority(
    all_of_them: list[Resource],
) -> None:
    told = {name for name, pod in pods(all_of_them) for one in pod["containers"][0].get("env", [])
            if one["name"] == "TLIM_XMPP_CA_FILE"}  # fmt: skip
    assert told == set()


def test_the_operator_s_command_has_a_volume_for_backups_that_outlives_its_job(all_of_them: list[Resource]) -> None:
    (claim,) = named(all_of_them, "PersistentVolumeClaim")
    (admin,) = [pod for name, pod in pods(all_of_them) if name == "admin"]
    (volume,) = [one["name"] for one in admin["volumes"]
                 if one.get("persistentVolumeClaim") == {"claimName": claim}]  # fmt: skip
    assert {"name": volume, "mountPath": "/backup"} in admin["containers"][0]["volumeMounts"]


def test_the_job_that_makes_databases_outside_gets_there_and_knows_their_authority(tmp_path: Path) -> None:
    resources = rendered("production", tmp_path / "deploy", edit=as_it_says("external-postgres"))
    assert_everything_is_there(resources)
    (job,) = [pod for name, pod in pods(resources) if name == "databases"]
    (container,) = job["containers"]
    assert {"name": "PGSSLROOTCERT", "value": "/etc/postgres/ca.pem"} in container["env"]
    assert "/etc/postgres" in {one["mountPath"] for one in container["volumeMounts"]}
    (chosen,) = named(resources, "NetworkPolicy")["external-postgres"]["spec"]["podSelector"]["matchExpressions"]
    assert "databases" in chosen["values"]


def test_files_of_a_large_volume_get_their_group_once_and_not_at_each_start(
    render: Callable[..., list[Resource]],
) -> None:
    for overlay, components in (("local", ()), ("production", ("backup-volume", "backup-schedule"))):
        resources = render(overlay, components)
        claiming = {name for name, pod in pods(resources) if any("persistentVolumeClaim" in v for v in pod["volumes"])}
        claiming |= {name for name, one in named(resources, "StatefulSet").items()
                     if "volumeClaimTemplates" in one["spec"]}  # fmt: skip
        assert claiming
        for name, pod in pods(resources):
            if name in claiming:
                assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", name


def test_one_node_has_a_volume_and_a_folder_for_each_claim(render: Callable[..., list[Resource]]) -> None:
    def with_backups(one_node: Path, _kustomization: Resource) -> None:
        file = one_node.parent / "local/kustomization.yaml"
        local = yaml.safe_load(file.read_text(encoding="utf-8"))
        local["components"].append("../../components/backup-volume")
        file.write_text(yaml.safe_dump(local), encoding="utf-8")

    resources = render("one-node", (), with_backups)

    claims = {name: one["spec"] for name, one in named(resources, "PersistentVolumeClaim").items()}
    for name, one in named(resources, "StatefulSet").items():
        for claim in one["spec"].get("volumeClaimTemplates", ()):
            claims |= {f"{claim['metadata']['name']}-{name}-{n}": claim["spec"] for n in range(one["spec"]["replicas"])}
    volumes = {one["spec"]["claimRef"]["name"]: one["spec"] for one in named(resources, "PersistentVolume").values()}
    assert {name: one["resources"]["requests"] for name, one in claims.items()} == {
        name: one["capacity"] for name, one in volumes.items()
    }
    comment = (DEPLOY / "k8s/overlays/one-node/kustomization.yaml").read_text(encoding="utf-8")
    (folders,) = re.findall(r"for name in ([\w ]+); do install -d /var/lib/tlim/\$name", comment)
    assert {f"/var/lib/tlim/{name}" for name in folders.split()} == {one["local"]["path"] for one in volumes.values()}


def test_apply_forgets_the_number_of_pods_before_autoscalers_keep_it(production: list[Resource]) -> None:
    comment = (DEPLOY / "k8s/components/autoscaling/kustomization.yaml").read_text(encoding="utf-8")
    ((names, script),) = re.findall(r"for name in ([\w -]+); do\n.*sed '([^']+)'", comment)
    deployments = named(production, "Deployment")
    assert set(names.split()) == deployments.keys()
    for deployment in deployments.values():
        left = subprocess.run(  # noqa: S603
            [program("sed"), script], input=yaml.safe_dump(deployment), capture_output=True, text=True, check=True
        )
        expected = copy.deepcopy(deployment)
        del expected["spec"]["replicas"]
        assert yaml.safe_load(left.stdout) == expected

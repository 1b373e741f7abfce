"""The manifests as an operator applies them: rendered by kustomize, and compared with what the code says."""

import json
import re
from typing import NamedTuple

import pytest
import yaml
from tlim_admin.settings import DoctorSettings
from tlim_protocol.streams import STREAMS
from tlim_runtime.provision import ProvisionSettings
from tlim_runtime.settings import DatabaseLogin, ServiceSettings

from tests.deploy import told
from tests.deploy.images import ROOT, locked_images
from tests.deploy.rendering import (
    DEPLOY,
    RELEASES,
    Resource,
    addresses,
    assert_everything_is_there,
    assert_no_variable_is_used_before_it_is_set,
    assert_the_api_server_takes,
    containers,
    pods,
)
from tests.deploy.told import SERVICES, assert_all_is_read, assert_the_gateway_reads
from tests.deploy.ways import assert_the_policies_let_through

SETTINGS: told.SettingsByName = {
    **told.SETTINGS,
    "wait-for-tables": DatabaseLogin,
    "provision": ProvisionSettings,
    "admin": DoctorSettings,
}
ENDS_S = 20  # after its requests a service finishes what it has in hand: xmpp-bridge takes longest (shards.py)
IN_GO = ("nats", "caddy", "seaweedfs")  # as deploy/images.lock calls them
TO_POSTGRES = {"TLIM_DATABASE_URL", "TLIM_POSTGRES_URL"}


class Way(NamedTuple):
    """A connection that a policy lets through; anybody if `source` is empty."""

    source: str
    target: str
    port: int


def mebibytes(size: str) -> int:
    return int(size[:-2]) * {"Mi": 1, "Gi": 1024}[size[-2:]]


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(each: list[Resource], release: str) -> None:
    assert_the_api_server_takes(each, release)


def test_every_pod_is_confined(each: list[Resource]) -> None:
    for name, pod in pods(each):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, f"{name}: Kubernetes would add TLIM_… variables of its own"
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume], name


def test_every_container_is_confined_and_bounded(each: list[Resource]) -> None:
    for name, pod in pods(each):
        for container in containers(pod):
            security, resources = container["securityContext"], container["resources"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"]["drop"] == ["ALL"], name
            assert set(security["capabilities"].get("add", [])) <= {"NET_BIND_SERVICE"}, name
            assert {"cpu", "memory"} <= set(resources["requests"]), name
            assert "memory" in resources["limits"], name


def test_every_program_in_go_collects_its_garbage_before_its_memory_is_used_up(each: list[Resource]) -> None:
    in_go = tuple(f"{locked_images()[name].partition('@')[0].rpartition(':')[0]}:" for name in IN_GO)
    collect = {}
    for _, pod in pods(each):
        for container in (one for one in containers(pod) if one["image"].startswith(in_go)):
            (told,) = [one["value"] for one in container["env"] if one["name"] == "GOMEMLIMIT"]
            limit = mebibytes(container["resources"]["limits"]["memory"])
            collect[container["name"]] = mebibytes(told.removesuffix("B")) / limit
    assert {"nats", "gateway"} <= collect.keys()
    assert all(0.7 < share < 0.9 for share in collect.values()), collect  # Go is not all of the process


def test_every_image_is_ours_with_a_tag_or_one_of_the_lock(local: list[Resource]) -> None:
    images = {container["image"] for _, pod in pods(local) for container in containers(pod)}
    ours = {image for image in images if image.startswith("localhost/")}
    assert images - ours <= set(locked_images().values())
    assert {image.rpartition(":")[0] for image in ours} == {
        f"localhost/tlim/{name}" for name in (*SERVICES, "ejabberd", "admin")
    }  # fmt: skip


def test_production_takes_each_of_our_images_from_a_registry_that_the_operator_fills_in(
    production: list[Resource],
) -> None:
    images = {container["image"] for _, pod in pods(production) for container in containers(pod)}
    ours = {image for image in images if "tlim/" in image}
    assert images - ours <= set(locked_images().values())
    assert {image.rpartition(":")[0] for image in ours} == {
        f"registry.example.com/tlim/{name}" for name in (*SERVICES, "ejabberd", "admin")
    }


def test_every_service_can_lose_a_node(each: list[Resource]) -> None:
    deployments = {one["metadata"]["name"]: one for one in each if one["kind"] == "Deployment"}
    budgets = {one["metadata"]["name"] for one in each if one["kind"] == "PodDisruptionBudget"}
    assert budgets >= set(deployments)
    for name, deployment in deployments.items():
        assert deployment["spec"]["replicas"] >= 2, name
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name


def test_a_pod_that_ends_takes_connections_until_others_know_it_and_has_time_to_drain(each: list[Resource]) -> None:
    drains_s = ServiceSettings.model_fields["shutdown_grace"].default.total_seconds()
    for deployment in (one for one in each if one["kind"] == "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        known_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert known_s >= 5, deployment["metadata"]["name"]
        assert pod["terminationGracePeriodSeconds"] >= known_s + drains_s + ENDS_S, deployment["metadata"]["name"]


def test_what_our_processes_are_told_is_what_they_read(each: list[Resource]) -> None:
    told_to = {
        container["name"]: [one["name"] for one in container["env"]]
        for _, pod in pods(each)
        for container in containers(pod)
        if container["name"] in SETTINGS
    }
    for name, variables in told_to.items():
        assert_all_is_read(SETTINGS[name], variables)
    has_servers = any(name == "databases" for name, _ in pods(each))
    assert set(told_to) == set(SETTINGS) - (set() if has_servers else {"databases", "bucket"})


def test_what_a_variable_is_made_of_stands_before_it(each: list[Resource]) -> None:
    assert_no_variable_is_used_before_it_is_set(each)


def test_everything_that_a_pod_refers_to_is_there(each: list[Resource]) -> None:
    assert_everything_is_there(each)


def test_what_the_gateway_is_told_is_in_its_configuration(each: list[Resource]) -> None:
    (gateway,) = [pod for name, pod in pods(each) if name == "gateway"]
    assert_the_gateway_reads([one["name"] for one in gateway["containers"][0]["env"]])


def test_wrong_passwords_are_counted_for_the_clients_address_and_not_for_the_gateways(each: list[Resource]) -> None:
    (bridge,) = [pod for name, pod in pods(each) if name == "xmpp-bridge"]
    assert {"name": "FORWARDED_ALLOW_IPS", "value": "*"} in bridge["containers"][0]["env"]


def test_every_workload_has_the_secrets_that_it_reads_and_no_others(each: list[Resource]) -> None:
    secrets = {one["metadata"]["name"]: set(one["data"]) for one in each if one["kind"] == "Secret"}
    for name, pod in pods(each):
        of_volumes = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        of_volumes |= {source["secret"]["name"] for volume in pod["volumes"] for source in
                       volume.get("projected", {}).get("sources", []) if "secret" in source}  # fmt: skip
        assert of_volumes <= {name}, name
        read = {value.removeprefix("/run/secrets/") for container in containers(pod) for one in
                container.get("env", []) if (value := one.get("value", "")).startswith("/run/secrets/")}  # fmt: skip
        assert read <= secrets.get(name, set()), name
        if name in SETTINGS and name not in {"databases", "admin"}:  # they are given the folder
            assert read == secrets[name], name


def test_the_limits_of_jetstream_fit_on_its_volume(each: list[Resource]) -> None:
    (limit,) = re.findall(r"max_file_store: (\d+)GB", (DEPLOY / "nats" / "nats.conf").read_text())
    assert sum(stream.max_bytes for stream in STREAMS) <= int(limit) * 1000**3
    (nats,) = [one for one in each if one["kind"] == "StatefulSet" and one["metadata"]["name"] == "nats"]
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


def test_the_readme_says_which_ports_each_component_opens_besides() -> None:
    files = [
        file for file in (DEPLOY / "k8s/components").glob("*/polic*.yaml") if file.parent.name != "network-policies"
    ]
    opened = {file.parent.name: set(re.findall(r"\bport: (\d+)", file.read_text(encoding="utf-8"))) for file in files}
    (table,) = re.findall(
        r"\| component \| what it opens \|\n(.*?)\n\n", (DEPLOY / "k8s/README.md").read_text(), re.DOTALL
    )
    said = {name: set(re.findall(r"\b\d{3,5}\b", what)) for name, what in re.findall(r"\| `(\S+)` \| (.*) \|", table)}
    assert said == opened


def test_whatever_the_settings_of_a_pod_name_can_be_reached(each: list[Resource]) -> None:
    assert_the_policies_let_through(each)


def test_everything_is_closed_for_whatever_no_policy_names(local: list[Resource]) -> None:
    (closed,) = [one for one in local if one["kind"] == "NetworkPolicy" and not one["spec"]["podSelector"]]
    assert closed["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in closed["spec"]
    assert [port["port"] for rule in closed["spec"]["egress"] for port in rule["ports"]] == [53, 53]
    named = {one["metadata"]["name"] for one in local if one["kind"] == "NetworkPolicy"}
    assert {name for name, _ in pods(local)} <= named


def test_a_database_is_made_and_told_the_same_as_in_compose(local: list[Resource]) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["postgres"]
    (pod,) = [pod for name, pod in pods(local) if name == "postgres"]
    (container,) = pod["containers"]
    told = {one["name"]: one["value"] for one in container["env"]}
    assert told["POSTGRES_INITDB_ARGS"] == compose["environment"]["POSTGRES_INITDB_ARGS"]
    assert container["args"] == compose["command"]


def test_s3_is_told_and_asked_the_same_as_in_compose(local: list[Resource]) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["s3"]
    (container,) = (pod["containers"][0] for name, pod in pods(local) if name == "s3")
    assert container["args"] == [*compose["entrypoint"], *compose["command"]]
    told = {one["name"]: one["value"] for one in container["env"]}
    assert told.keys() == compose["environment"].keys()
    assert {name for name in told if told[name] != compose["environment"][name]} == {"GOMEMLIMIT"}  # by its mem_limit
    for probe in ("startupProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == ("/healthz", "s3")
    assert compose["healthcheck"]["test"][-1] == "http://127.0.0.1:8333/healthz"


def test_production_keeps_every_message_three_times_and_on_disk(production: list[Resource]) -> None:
    (nats,) = [one for one in production if one["kind"] == "StatefulSet" and one["metadata"]["name"] == "nats"]
    assert nats["spec"]["replicas"] == 3
    (apart,) = nats["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert addresses(production)["nats-replicas"] == "3"
    single, cluster = ((DEPLOY / "nats" / name).read_text() for name in ("nats.conf", "cluster.conf"))
    assert "sync_interval: always" in cluster
    for limit in ("max_memory_store", "max_file_store"):  # cluster.conf replaces all of nats.conf's block
        assert re.findall(rf"{limit}: \w+", single) == re.findall(rf"{limit}: \w+", cluster)


def test_whoever_makes_streams_makes_as_many_copies_as_the_overlay_says(each: list[Resource]) -> None:
    copies = {"name": "TLIM_NATS_REPLICAS",
              "valueFrom": {"configMapKeyRef": {"name": "addresses", "key": "nats-replicas"}}}  # fmt: skip
    made = {name for name, pod in pods(each) if copies in pod["containers"][0].get("env", [])}
    assert made == {"provision", "admin"}  # the command `replay` makes them anew


def test_production_has_no_database_and_no_s3_inside_and_speaks_tls_with_those_outside(
    production: list[Resource],
) -> None:
    assert {"postgres", "s3", "databases", "bucket"}.isdisjoint(name for name, _ in pods(production))
    where = addresses(production)
    assert where["postgres-options"] == "?sslmode=verify-full"
    assert where["s3"].startswith("https://")
    assert where["s3-public"].startswith("https://")
    for name, pod in pods(production):
        for container in containers(pod):
            told = {one["name"] for one in container["env"]} if "env" in container else set()
            assert bool(TO_POSTGRES & told) == ("PGSSLROOTCERT" in told), name
    (gateway,) = [pod for name, pod in pods(production) if name == "gateway"]
    assert {"name": "TLIM_GATEWAY_SCHEME", "value": "https"} in gateway["containers"][0]["env"]


def test_the_doctor_of_production_is_told_all_that_clients_reach(production: list[Resource]) -> None:
    (admin,) = [pod for name, pod in pods(production) if name == "admin"]
    told = {one["name"]: one.get("value") or one["valueFrom"]["configMapKeyRef"]["key"]
            for one in admin["containers"][0]["env"]}  # fmt: skip
    untold = {field for field in DoctorSettings.model_fields
              if not {f"TLIM_{field}".upper(), f"TLIM_{field}_FILE".upper()} & told.keys()}  # fmt: skip
    assert untold == {"nats_user", "xmpp_client_port", "s3_public_via"}  # whose defaults are right
    where = addresses(production)
    assert where[told["TLIM_S3_PUBLIC_URL"]] == where["s3-public"]
    assert where[told["TLIM_GATEWAY"]] == f"https://{where['xmpp-domain']}"


def test_the_bridge_reaches_the_certificate_of_a_gateway_with_https(production: list[Resource]) -> None:
    (bridge,) = [pod for name, pod in pods(production) if name == "xmpp-bridge"]
    assert {"name": "TLIM_GATEWAY_URL", "value": "https://gateway"} in bridge["containers"][0]["env"]
    named = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in production if "spec" in one}
    (door,) = (port for port in named["Service", "gateway"]["ports"] if port["port"] == 443)
    (rule,) = named["NetworkPolicy", "gateway-certificate"]["egress"]
    (gateway,) = [pod for name, pod in pods(production) if name == "gateway"]
    ports = {one["name"]: one["containerPort"] for one in gateway["containers"][0]["ports"]}
    assert rule["ports"] == [{"port": ports[door["targetPort"]]}]


def test_production_is_reached_from_outside_and_sees_from_where(production: list[Resource]) -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in production if one["kind"] == "Service"}
    doors = {name: spec for name, spec in services.items() if spec.get("type") == "LoadBalancer"}
    assert {name: [port["port"] for port in spec["ports"]] for name, spec in doors.items()} == {
        "gateway": [443],
        "xmpp": [5222, 5280],
    }
    assert {spec["externalTrafficPolicy"] for spec in doors.values()} == {"Local"}


def test_in_production_only_the_named_workloads_reach_what_is_outside(production: list[Resource]) -> None:
    outside = {}
    for one in production:
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"].startswith("external-"):
            (chosen,) = one["spec"]["podSelector"]["matchExpressions"]
            (rule,) = one["spec"]["egress"]
            outside[rule["ports"][0]["port"]] = set(chosen["values"])
    databases = {name for name, pod in pods(production) for container in containers(pod) for one in
                 container.get("env", []) if one["name"] in TO_POSTGRES}  # fmt: skip
    jobs = {"databases"}  # which an overlay adds, for a PostgreSQL outside that we administer
    assert outside == {5432: databases | jobs, 443: {"file-api", "admin"}}


def test_whatever_has_several_pods_in_production_is_spread_over_zones(production: list[Resource]) -> None:
    for one in production:
        if one["kind"] in ("Deployment", "StatefulSet") and one["spec"]["replicas"] > 1:
            name, pod = one["metadata"]["name"], one["spec"]["template"]["spec"]
            spread = {rule["topologyKey"]: rule for rule in pod["topologySpreadConstraints"]}
            assert spread["topology.kubernetes.io/zone"]["labelSelector"] == {
                "matchLabels": {"app.kubernetes.io/name": name}
            }
            assert "kubernetes.io/hostname" in spread or "podAntiAffinity" in pod["affinity"], name


def test_the_nodes_of_production_s_ejabberd_keep_nothing_and_find_each_other(production: list[Resource]) -> None:
    named = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in production if "spec" in one}
    ejabberd, service = named["StatefulSet", "ejabberd"], named["Service", "ejabberd-nodes"]
    (container,) = ejabberd["template"]["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert ejabberd["replicas"] >= 2
    assert int(env["XMPP_NODES"]) == ejabberd["replicas"]
    assert "volumeClaimTemplates" not in ejabberd
    assert env["XMPP_SERVICE"] == ejabberd["serviceName"]
    assert service["publishNotReadyAddresses"] is True  # a node that starts is not ready
    (port,) = re.findall(r"-erl_epmd_port (\d+)", (DEPLOY / "ejabberd/start").read_text(encoding="utf-8"))
    assert [one["port"] for one in service["ports"]] == [int(port)]
    rules = [*named["NetworkPolicy", "ejabberd-nodes"]["ingress"], *named["NetworkPolicy", "ejabberd-nodes"]["egress"]]
    assert [one["ports"] for one in rules] == [[{"port": int(port)}]] * 2
    assert named["PodDisruptionBudget", "ejabberd"]["maxUnavailable"] == 1


def test_a_node_of_ejabberd_has_time_to_give_its_sessions_up(production: list[Resource]) -> None:
    (pod,) = [pod for name, pod in pods(production) if name == "ejabberd"]
    (drain_ms,) = re.findall(
        r"define\(DRAIN, (\d+)\)", (DEPLOY / "ejabberd/tlim_cluster.erl").read_text(encoding="utf-8")
    )
    known_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= known_s + int(drain_ms) / 1000 + ENDS_S


def test_kubectl_apply_can_note_every_resource_in_its_annotation(each: list[Resource]) -> None:
    for resource in each:
        assert len(json.dumps(resource, ensure_ascii=False).encode()) < 262_144, resource["metadata"]["name"]

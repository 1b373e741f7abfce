"""PostgreSQL of the operator CloudNativePG: rendered with `production`, as the component says to add it."""

from collections.abc import Callable

import pytest
import yaml

from tests.deploy.images import ROOT, locked_images
from tests.deploy.rendering import (
    RELEASES,
    Resource,
    addresses,
    as_it_says,
    assert_no_variable_is_used_before_it_is_set,
    assert_the_api_server_takes,
    containers,
    named,
    pods,
)
from tests.deploy.told import SETTINGS, assert_all_is_read

CALLS = {"TLIM_DATABASE_URL", "TLIM_POSTGRES_URL", "XMPP_SQL_SERVER"}


@pytest.fixture(scope="module")
def cnpg(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("production", ("postgres-cnpg",), as_it_says("postgres-cnpg"))


@pytest.fixture(scope="module")
def cluster(cnpg: list[Resource]) -> Resource:
    (found,) = named(cnpg, "Cluster").values()
    return found


def callers(resources: list[Resource]) -> dict[str, list[Resource]]:
    """Return the containers that are told where PostgreSQL is, by the names of their workloads."""
    found: dict[str, list[Resource]] = {}
    for name, pod in pods(resources):
        for container in containers(pod):
            if CALLS & {one["name"] for one in container.get("env", [])}:
                found.setdefault(name, []).append(container)
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(cnpg: list[Resource], release: str) -> None:
    assert_the_api_server_takes(cnpg, release)


def test_its_image_is_locked_and_it_is_made_and_told_the_same_as_in_compose(cluster: Resource) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["postgres"]
    spec, initdb = cluster["spec"], cluster["spec"]["bootstrap"]["initdb"]
    assert spec["imageName"] == locked_images()["postgres-cnpg"]
    made = compose["environment"]["POSTGRES_INITDB_ARGS"]
    assert f"--encoding={initdb['encoding']} --locale={initdb['locale']}" in made
    told = dict(one.split("=") for one in compose["command"] if "=" in one)
    assert told.items() <= spec["postgresql"]["parameters"].items()


def test_what_is_confirmed_is_on_two_servers_of_different_nodes(cluster: Resource) -> None:
    synchronous, affinity = cluster["spec"]["postgresql"]["synchronous"], cluster["spec"]["affinity"]
    assert (synchronous["number"], synchronous["dataDurability"]) == (1, "required")
    assert cluster["spec"]["instances"] - synchronous["number"] >= 2  # one of them can be away
    assert (affinity["podAntiAffinityType"], affinity["topologyKey"]) == ("required", "kubernetes.io/hostname")


def test_all_that_call_it_ask_for_the_certificate_of_its_own_authority(cnpg: list[Resource], cluster: Resource) -> None:
    where = addresses(cnpg)
    name = cluster["metadata"]["name"]
    assert (where["postgres"], where["postgres-options"]) == (f"{name}-rw:5432", "?sslmode=verify-full")
    volumes = {name: {one["name"]: one for one in pod["volumes"]} for name, pod in pods(cnpg)}
    for caller, found in callers(cnpg).items():
        for container in found:
            (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == "/etc/postgres"]
            authority = {"secretName": f"{name}-ca", "items": [{"key": "ca.crt", "path": "ca.pem"}]}
            assert volumes[caller][mount["name"]] == {"name": mount["name"], "secret": authority}
            told = {one["name"]: one.get("value") for one in container["env"]}
            assert "XMPP_SQL_OPTIONS" in told or told["PGSSLROOTCERT"] == "/etc/postgres/ca.pem", caller


def test_the_job_makes_databases_as_a_role_that_may_and_is_no_superuser(
    cnpg: list[Resource], cluster: Resource
) -> None:
    (role,) = cluster["spec"]["managed"]["roles"]
    assert cluster["spec"]["enableSuperuserAccess"] is False
    assert {key: value for key, value in role.items() if value is True} == dict.fromkeys(
        ("login", "createdb", "createrole"), True
    )
    assert cluster["spec"]["postgresql"]["parameters"]["createrole_self_grant"] == "set, inherit"
    (container,) = callers(cnpg)["databases"]
    assert_all_is_read(SETTINGS["databases"], [one["name"] for one in container["env"]])
    (url,) = [one["value"] for one in container["env"] if one["name"] == "TLIM_DATABASE_URL"]
    assert url == f"postgresql+asyncpg://{role['name']}@$(POSTGRES)/postgres$(POSTGRES_OPTIONS)"


def test_what_a_variable_is_made_of_stands_before_it(cnpg: list[Resource]) -> None:
    assert_no_variable_is_used_before_it_is_set(cnpg)


def test_the_role_s_secret_has_its_name_and_the_password_of_the_job(cnpg: list[Resource], cluster: Resource) -> None:
    (role,) = cluster["spec"]["managed"]["roles"]
    secrets = named(cnpg, "Secret")
    login = secrets[role["passwordSecret"]["name"]]
    assert login["type"] == "kubernetes.io/basic-auth"
    assert yaml.safe_load(f"!!binary {login['data']['username']}") == role["name"].encode()
    assert login["data"]["password"] == secrets["databases"]["data"]["postgres-admin"]


def test_nobody_else_may_call_it_and_none_of_them_calls_a_postgresql_outside(
    cnpg: list[Resource], cluster: Resource
) -> None:
    policies = named(cnpg, "NetworkPolicy")
    assert "external-postgres" not in policies
    calling, called = policies["to-postgres"]["spec"], policies["postgres-servers"]["spec"]
    servers = {"matchLabels": {"cnpg.io/cluster": cluster["metadata"]["name"]}}
    (chosen,) = calling["podSelector"]["matchExpressions"]
    assert set(chosen["values"]) == set(callers(cnpg))
    assert calling["egress"] == [{"to": [{"podSelector": servers}], "ports": [{"port": 5432}]}]
    assert called["podSelector"] == servers
    assert called["ingress"][0] == {"from": [{"podSelector": calling["podSelector"]}], "ports": [{"port": 5432}]}

"""PostgreSQL outside with S3 inside of the cluster, and the reverse: `production`, changed as the components say."""

from pathlib import Path

import pytest

from tests.deploy.rendering import (
    Edit,
    Resource,
    addresses,
    as_it_says,
    assert_everything_is_there,
    assert_no_variable_is_used_before_it_is_set,
    assert_the_api_server_takes,
    containers,
    named,
    pods,
    rendered,
)
from tests.deploy.ways import assert_the_policies_let_through

NEWEST = "1.37"


def in_place_of(outside: str, inside: str) -> Edit:
    """Return the edit of an operator who takes a component out, and adds what the other one's comment shows."""

    def edit(overlay: Path, kustomization: Resource) -> None:
        kustomization["components"].remove(f"../../components/{outside}")
        if outside == "external-postgres":
            kustomization["configMapGenerator"] = [
                one for one in kustomization["configMapGenerator"] if one["name"] != "postgres-authority"
            ]
        as_it_says(inside)(overlay, kustomization)

    return edit


def told(resources: list[Resource]) -> dict[str, set[str]]:
    """Return the names of the variables of each workload."""
    return {
        name: {one["name"] for container in containers(pod) for one in container.get("env", [])}
        for name, pod in pods(resources)
    }


@pytest.fixture(scope="module")
def s3_inside(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    edit = in_place_of("external-s3", "s3-seaweedfs")
    return rendered("production", tmp_path_factory.mktemp("s3") / "deploy", ("s3-seaweedfs",), edit)


@pytest.fixture(scope="module")
def postgres_inside(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    edit = in_place_of("external-postgres", "postgres-single")
    return rendered("production", tmp_path_factory.mktemp("postgres") / "deploy", ("postgres-single",), edit)


@pytest.fixture(params=["s3_inside", "postgres_inside"])
def mixture(request: pytest.FixtureRequest) -> list[Resource]:
    found: list[Resource] = request.getfixturevalue(request.param)
    return found


def test_everything_that_a_pod_refers_to_is_there(mixture: list[Resource]) -> None:
    assert_everything_is_there(mixture)
    assert_no_variable_is_used_before_it_is_set(mixture)
    assert_the_api_server_takes(mixture, NEWEST)
    assert_the_policies_let_through(mixture)


def test_with_s3_inside_the_gateway_leads_there_and_only_postgresql_is_outside(s3_inside: list[Resource]) -> None:
    where, variables = addresses(s3_inside), told(s3_inside)
    assert (where["s3"], where["s3-host"], where["postgres-options"]) == (
        "http://s3:8333", "s3:8333", "?sslmode=verify-full"
    )  # fmt: skip
    assert {"TLIM_S3", "TLIM_S3_BUCKET"} <= variables["gateway"]
    assert "PGSSLROOTCERT" in variables["file-api"]
    assert 9091 in {one["port"] for one in named(s3_inside, "Service")["gateway"]["spec"]["ports"]}
    policies = named(s3_inside, "NetworkPolicy")
    assert ("external-s3" in policies, "external-postgres" in policies) == (False, True)


def test_with_postgresql_inside_nobody_asks_for_an_authority_and_only_s3_is_outside(
    postgres_inside: list[Resource],
) -> None:
    where, variables = addresses(postgres_inside), told(postgres_inside)
    assert (where["postgres"], where["postgres-options"]) == ("postgres:5432", "")
    assert where["s3"].startswith("https://")
    assert not [name for name, names in variables.items() if "PGSSLROOTCERT" in names]
    assert "TLIM_S3" not in variables["gateway"]
    policies = named(postgres_inside, "NetworkPolicy")
    assert ("external-s3" in policies, "external-postgres" in policies) == (True, False)

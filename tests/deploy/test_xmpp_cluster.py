"""A cluster of ejabberd beside a PostgreSQL of ours: rendered with `local`, as the component says to add it."""

from collections.abc import Callable

import pytest

from tests.deploy.rendering import (
    RELEASES,
    Resource,
    as_it_says,
    assert_everything_is_there,
    assert_the_api_server_takes,
    named,
)


@pytest.fixture(scope="module")
def clustered(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("local", ("xmpp-cluster",), as_it_says("xmpp-cluster"))


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(clustered: list[Resource], release: str) -> None:
    assert_the_api_server_takes(clustered, release)


def test_everything_that_a_pod_refers_to_is_there(clustered: list[Resource]) -> None:
    assert_everything_is_there(clustered)


def test_the_role_is_made_with_the_password_with_which_nodes_and_job_come(clustered: list[Resource]) -> None:
    secrets = named(clustered, "Secret")
    passwords = [secrets[one]["data"].get("postgres-ejabberd") for one in ("databases", "ejabberd", "migrate-ejabberd")]
    assert passwords[0]
    assert len(set(passwords)) == 1

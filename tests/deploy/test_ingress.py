"""The gateway behind an Ingress of the cluster: rendered with `production`, as the page says to add it."""

from collections.abc import Callable

import pytest

from tests.deploy.rendering import (
    RELEASES,
    Resource,
    addresses,
    assert_everything_is_there,
    assert_no_variable_is_used_before_it_is_set,
    assert_the_api_server_takes,
    in_place_of_https,
    named,
    pods,
)
from tests.deploy.told import assert_the_gateway_reads
from tests.deploy.ways import assert_the_policies_let_through


@pytest.fixture(scope="module")
def behind_it(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("production", ("ingress",), in_place_of_https)


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(behind_it: list[Resource], release: str) -> None:
    assert_the_api_server_takes(behind_it, release)


def test_everything_fits_together(behind_it: list[Resource]) -> None:
    assert_everything_is_there(behind_it)
    assert_no_variable_is_used_before_it_is_set(behind_it)
    assert_the_policies_let_through(behind_it)


def test_people_reach_the_gateway_through_it_alone(behind_it: list[Resource]) -> None:
    assert named(behind_it, "Service")["gateway"]["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_it_leads_to_the_port_on_which_the_gateway_speaks_http(behind_it: list[Resource]) -> None:
    (ingress,) = named(behind_it, "Ingress").values()
    domain = addresses(behind_it)["xmpp-domain"]
    (rule,), (tls,) = ingress["spec"]["rules"], ingress["spec"]["tls"]
    assert (rule["host"], tls["hosts"]) == (domain, [domain])
    backend = rule["http"]["paths"][0]["backend"]["service"]
    ports = {port["name"]: port["port"] for port in named(behind_it, "Service")[backend["name"]]["spec"]["ports"]}
    assert (backend["name"], ports[backend["port"]["name"]]) == ("gateway", 9090)
    (gateway,) = [pod for name, pod in pods(behind_it) if name == "gateway"]
    assert "TLIM_GATEWAY_SCHEME" not in {one["name"] for one in gateway["containers"][0]["env"]}


def test_the_gateway_believes_it(behind_it: list[Resource]) -> None:
    (gateway,) = [pod for name, pod in pods(behind_it) if name == "gateway"]
    told = [one["name"] for one in gateway["containers"][0]["env"]]
    assert "TLIM_TRUSTED_PROXIES" in told
    assert_the_gateway_reads(told)


def test_cert_manager_makes_the_secret_of_its_certificate(render: Callable[..., list[Resource]]) -> None:
    resources = render("production", ("cert-manager", "ingress"), in_place_of_https)
    (ingress,), (certificate,) = named(resources, "Ingress").values(), named(resources, "Certificate").values()
    (tls,) = ingress["spec"]["tls"]
    assert tls["secretName"] == certificate["spec"]["secretName"]

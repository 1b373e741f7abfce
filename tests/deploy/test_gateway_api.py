"""The gateway behind a Gateway of the cluster: rendered with `production`, as the component says to add it."""

from collections.abc import Callable

import pytest

from tests.deploy.rendering import (
    RELEASES,
    Resource,
    addresses,
    assert_the_api_server_takes,
    in_place_of_https,
    named,
    pods,
)
from tests.deploy.told import assert_the_gateway_reads


@pytest.fixture(scope="module")
def behind_it(render: Callable[..., list[Resource]]) -> list[Resource]:
    return render("production", ("cert-manager", "gateway-api"), in_place_of_https)


@pytest.mark.parametrize("release", RELEASES)
def test_all_of_it_is_what_the_api_server_takes(behind_it: list[Resource], release: str) -> None:
    assert_the_api_server_takes(behind_it, release)


def test_people_reach_it_with_tls_only_and_with_the_certificate_of_the_domain(behind_it: list[Resource]) -> None:
    domain = addresses(behind_it)["xmpp-domain"]
    (door,) = named(behind_it, "Gateway").values()
    (listener,) = door["spec"]["listeners"]
    assert (listener["protocol"], listener["port"], listener["hostname"]) == ("HTTPS", 443, domain)
    (certificate,) = named(behind_it, "Certificate").values()
    assert listener["tls"]["certificateRefs"] == [{"name": certificate["spec"]["secretName"]}]
    assert named(behind_it, "Service")["gateway"]["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_all_paths_of_the_domain_lead_to_the_gateway_which_believes_it(behind_it: list[Resource]) -> None:
    (door,), (route,) = named(behind_it, "Gateway").values(), named(behind_it, "HTTPRoute").values()
    (parent,), (rule,) = route["spec"]["parentRefs"], route["spec"]["rules"]
    assert (parent["name"], parent["sectionName"]) == (
        door["metadata"]["name"],
        door["spec"]["listeners"][0]["name"],
    )
    assert route["spec"]["hostnames"] == [addresses(behind_it)["xmpp-domain"]]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    (backend,) = rule["backendRefs"]
    ports = {port["name"]: port["port"] for port in named(behind_it, "Service")[backend["name"]]["spec"]["ports"]}
    assert (backend["name"], backend["port"]) == ("gateway", ports["http"])
    (gateway,) = [pod for name, pod in pods(behind_it) if name == "gateway"]
    told = [one["name"] for one in gateway["containers"][0]["env"]]
    assert "TLIM_TRUSTED_PROXIES" in told
    assert_the_gateway_reads(told)

"""The probes of what runs on: one that hangs is started anew, and none because another server is away."""

from urllib.parse import urlsplit

from tests.deploy.rendering import DEPLOY, Resource, named
from tests.deploy.told import SERVICES

RECORDS = {"postgres", "s3"}
"""No liveness probe ends these: a start anew in the middle of their recovery only begins it again."""
PATIENT_S = 300
"""ejabberd is not ended before: all of its people would connect again, which a busy machine can do without."""
READING_S = 3600
"""So long a server may read or mend its data after a start. One that is ended in the middle begins again."""


def running(resources: list[Resource]) -> dict[str, Resource]:
    """Return the one container of each workload that does not end."""
    workloads = {**named(resources, "Deployment"), **named(resources, "StatefulSet")}
    return {name: one["spec"]["template"]["spec"]["containers"][0] for name, one in workloads.items()}


def test_everything_that_runs_on_is_probed(each: list[Resource]) -> None:
    for name, container in running(each).items():
        assert {"startupProbe", "readinessProbe"} <= set(container), name
        assert ("livenessProbe" in container) == (name not in RECORDS), name


def test_the_gateway_is_asked_in_the_scheme_that_it_speaks(each: list[Resource]) -> None:
    gateway = running(each)["gateway"]
    scheme = {one["name"]: one.get("value") for one in gateway["env"]}.get("TLIM_GATEWAY_SCHEME", "http")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = gateway[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == ("/healthz", "http")
        assert asked.get("scheme", "HTTP") == scheme.upper()


def test_no_probe_restarts_a_service_because_a_server_is_away(each: list[Resource]) -> None:
    for name in SERVICES:
        assert running(each)[name]["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}


def test_an_ejabberd_that_hangs_is_started_anew_but_not_in_a_hurry_and_for_its_own_doors_only(
    each: list[Resource],
) -> None:
    probe = running(each)["ejabberd"]["livenessProbe"]
    assert probe["exec"] == {"command": ["healthy"]}
    assert probe["failureThreshold"] * probe["periodSeconds"] >= PATIENT_S
    asked = (DEPLOY / "ejabberd/healthy").read_text(encoding="utf-8").split("/dev/tcp/")[1:]
    assert {one.partition("/")[0] for one in asked} == {"127.0.0.1"}
    # Its answer on 5222 is made without accounts, which may be in PostgreSQL: before TLS it offers nothing else.
    assert "starttls_required: true" in (DEPLOY / "ejabberd/ejabberd.yml").read_text(encoding="utf-8")


def test_a_server_that_reads_its_data_after_its_start_is_not_ended_in_the_middle(each: list[Resource]) -> None:
    for name, container in running(each).items():
        if name in {"nats", *RECORDS}:
            probe = container["startupProbe"]
            assert probe["failureThreshold"] * probe["periodSeconds"] >= READING_S, name


def test_the_keys_of_tokens_are_reached_while_no_bridge_is_ready(each: list[Resource]) -> None:
    services = named(each, "Service")
    for name in SERVICES:
        (url,) = [one["value"] for one in running(each)[name]["env"] if one["name"] == "TLIM_JWKS_URL"]
        service = services[str(urlsplit(url).hostname)]["spec"]
        assert service["selector"] == {"app.kubernetes.io/name": "xmpp-bridge"}
        assert service["publishNotReadyAddresses"] is True

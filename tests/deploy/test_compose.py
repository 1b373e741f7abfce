"""docker-compose.yml: every container closed, every setting known, every image locked, only the doors published."""

import re

import pytest
import yaml
from tlim_admin import secret_files
from tlim_admin.object_store import FILES_BUCKET
from tlim_runtime import variables

from tests.deploy.compose_file import COMPOSE, CONTAINERS, SETTINGS, TEXT, interpolate, with_those_of_overrides
from tests.deploy.images import ROOT, locked_images
from tests.deploy.told import SERVICES, assert_all_is_read, assert_the_gateway_reads

JOBS = {
    "prepare",
    "streams",
    "databases",
    "bucket",
    "admin",
    *(name for name in SETTINGS if name.startswith("migrate-")),
}
ALL = with_those_of_overrides()
DOORS = {"gateway": {9090, 9091}, "ejabberd": {5222, 5280}}


@pytest.mark.parametrize("name", ALL)
def test_every_container_is_closed_and_bounded(name: str) -> None:
    container = ALL[name]
    assert container["user"] == {"prometheus": "65534:65534"}.get(name, "10001:10001")
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert set(container.get("cap_add", [])) <= ({"NET_BIND_SERVICE"} if name == "gateway" else set())
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit"} <= container.keys()
    assert not {"privileged", "pid", "ipc", "devices"} & container.keys()
    assert container.get("network_mode", "none") == "none"


def test_no_line_of_env_leads_file_api_to_another_bucket_than_its_key() -> None:
    assert CONTAINERS["file-api"]["environment"]["TLIM_S3_BUCKET"] == FILES_BUCKET


def test_the_bucket_is_made_with_the_key_that_may() -> None:
    access_key, _ = secret_files.S3_KEYS["s3-admin"]
    assert CONTAINERS["bucket"]["environment"]["TLIM_S3_ACCESS_KEY"] == access_key


@pytest.mark.parametrize("name", ALL)
def test_a_job_ends_and_all_others_come_back_and_have_a_health_check(name: str) -> None:
    container = ALL[name]
    if name in JOBS:
        assert container["restart"] == "no"
    else:
        assert container["restart"] == "unless-stopped"
        assert container["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
        ours = container["image"].startswith("${TLIM_IMAGES")  # their images have one
        assert ours or container["healthcheck"]["test"][0] == "CMD"


def test_whoever_waits_for_a_job_waits_for_its_success() -> None:
    for name, container in CONTAINERS.items():
        waits = container.get("depends_on", {})
        for other, how in waits.items() if isinstance(waits, dict) else ():
            if other in JOBS:
                wanted = "service_completed_successfully"
            else:  # the bridge needs those who wait for it, so they wait for its start only
                wanted = "service_started" if other == "xmpp-bridge" else "service_healthy"
            assert how["condition"] == wanted, f"{name} waits for {other}"


def test_the_bridge_does_not_wait_for_message_store_within_its_start_period() -> None:
    of_message_store = {name for name in CONTAINERS["message-store"]["depends_on"] if name in JOBS}
    assert of_message_store <= set(CONTAINERS["xmpp-bridge"]["depends_on"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"xmpp-bridge"}))
def test_a_service_does_not_wait_for_the_keys_of_tokens_within_its_start_period(name: str) -> None:
    assert "//xmpp-bridge:" in CONTAINERS[name]["environment"]["TLIM_JWKS_URL"]
    assert "xmpp-bridge" in CONTAINERS[name]["depends_on"]


def test_only_the_doors_are_published_and_on_loopback_unless_told_otherwise() -> None:
    published = {name: container["ports"] for name, container in CONTAINERS.items() if "ports" in container}
    assert {name: {int(port.rpartition(":")[2]) for port in ports} for name, ports in published.items()} == DOORS
    assert all(port.startswith("${TLIM_BIND:-127.0.0.1}:") for ports in published.values() for port in ports)


@pytest.mark.parametrize("given", [{}, {"TLIM_PORT_FILES": "19091"}])
@pytest.mark.parametrize(("file", "scheme"), [("docker-compose.yml", "http"), ("deploy/compose/tls.yml", "https")])
def test_signed_addresses_lead_to_the_port_that_is_published(file: str, scheme: str, given: dict[str, str]) -> None:
    (published,) = (one for one in CONTAINERS["gateway"]["ports"] if one.endswith(":9091"))
    address, port, _ = interpolate(published, given).split(":")
    containers = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["services"]
    for name in ("file-api", "admin"):
        signed = containers[name]["environment"]["TLIM_S3_PUBLIC_URL"]
        assert interpolate(signed, given) == f"{scheme}://{address}:{port}"
        assert interpolate(signed, given | {"TLIM_S3_PUBLIC_URL": "https://files.example"}) == "https://files.example"


def test_the_start_fails_if_people_would_be_served_plain_http() -> None:
    told = {"--plain-http-at=${TLIM_BIND:-127.0.0.1}", "--proxies=${TLIM_TRUSTED_PROXIES:-}"}
    assert told <= set(CONTAINERS["prepare"]["command"])


def test_the_start_fails_if_the_certificate_is_for_another_domain_than_that_of_the_accounts() -> None:
    domain = CONTAINERS["xmpp-bridge"]["environment"]["TLIM_XMPP_DOMAIN"]
    assert f"--domain={domain}" in CONTAINERS["prepare"]["command"]


def test_the_network_of_the_record_has_no_way_out() -> None:
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for name in ("nats", "postgres"):
        assert CONTAINERS[name]["networks"] == ["data"]
    assert "data" not in CONTAINERS["gateway"]["networks"]


@pytest.mark.parametrize("name", SETTINGS)
def test_what_our_processes_are_told_is_what_they_read(name: str) -> None:
    assert_all_is_read(SETTINGS[name], CONTAINERS[name]["environment"])


def test_a_service_sees_all_of_the_operators_settings_so_a_mistyped_name_stops_it() -> None:
    seeing = {name: one["env_file"] for name, one in CONTAINERS.items() if "env_file" in one}
    assert seeing == {name: [{"path": ".env", "required": False}] for name in (*SERVICES, "prepare")}


def test_what_the_gateway_is_told_is_in_its_configuration() -> None:
    assert_the_gateway_reads(CONTAINERS["gateway"]["environment"])


def test_wrong_passwords_are_counted_for_the_clients_address_and_not_for_the_gateways() -> None:
    assert CONTAINERS["xmpp-bridge"]["environment"]["FORWARDED_ALLOW_IPS"] == "*"


def test_every_variable_that_the_operator_can_set_is_known() -> None:
    assert set(re.findall(r"\$\{(TLIM_\w+)", TEXT)) <= variables.KNOWN


def test_the_images_are_ours_or_those_of_the_lock() -> None:
    prefixed = {
        reference.replace("docker.io/", "${TLIM_REGISTRY:-docker.io}/", 1) for reference in locked_images().values()
    }
    ours = {
        f"${{TLIM_IMAGES:-localhost/tlim}}/{name}:${{TLIM_VERSION:-dev}}" for name in (*SERVICES, "admin", "ejabberd")
    }
    used = {container["image"] for container in CONTAINERS.values()}
    assert used <= prefixed | ours
    assert ours <= used


def test_the_secrets_are_those_that_are_made_and_each_container_has_what_it_reads() -> None:
    made = {*secret_files.random_names(), secret_files.TOKEN_KEY, secret_files.CERTIFICATE, secret_files.AUTHORITY}
    made |= {secret_files.NATS_USERS, secret_files.S3_IDENTITIES}
    assert COMPOSE["secrets"] == {name: {"file": f"./secrets/{name}"} for name in made}
    assert set(CONTAINERS["prepare"]["secrets"]) == made
    for name in SETTINGS:
        values = CONTAINERS[name]["environment"].values()
        read = {one.removeprefix("/run/secrets/") for one in values if str(one).startswith("/run/secrets/")}
        assert read <= set(CONTAINERS[name]["secrets"])
        in_a_folder = {"databases", "admin"}  # they are given the folder, and read the passwords of roles
        assert name in in_a_folder or read == set(CONTAINERS[name]["secrets"])


def test_the_volume_of_postgresql_has_the_major_version_of_its_image() -> None:
    (major,) = re.findall(r"/postgres:(\d+)", CONTAINERS["postgres"]["image"])
    assert CONTAINERS["postgres"]["volumes"][0]["source"] == f"postgres-{major}"
    assert f"postgres-{major}" in COMPOSE["volumes"]


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/compose/observability.yml"])
def test_an_upgrade_starts_anew_whatever_has_a_file_of_the_repository_mounted(file: str) -> None:
    containers = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["services"]
    mounting = {name for name, one in containers.items() if "./deploy/" in str(one.get("volumes"))}
    assert mounting
    for name in mounting:
        assert containers[name].get("labels") == {"tlim.release": "${TLIM_VERSION:-dev}"}, name

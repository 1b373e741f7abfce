"""Further processes of a service, and ways to servers that are not the servers' own ports."""

from pathlib import Path

import pytest
from tlim_devstack.ports import Ports
from tlim_devstack.stack import Stack
from tlim_devstack.supervision import Program
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN

FURTHER = {"xmpp-bridge-2": 20_001, "message-store-2": 20_002}
THROUGH = {
    ("xmpp-bridge-2", "nats"): 20_003,
    ("xmpp-bridge-2", "component"): 20_004,
    ("message-store", "postgres"): 20_005,
}


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Program]:
    stack = Stack(tmp_path, Ports(), further=FURTHER, through=THROUGH)
    return {program.name: program for program in stack.services.all()}


def test_a_further_process_is_the_same_user_at_a_port_of_its_own(programs: dict[str, Program]) -> None:
    first, second = programs["message-store"].environment, programs["message-store-2"].environment

    assert second["TLIM_PORT"] == "20002"
    assert second["TLIM_NATS_USER"] == first["TLIM_NATS_USER"] == "message-store"
    assert programs["message-store-2"].command == programs["message-store"].command


def test_only_the_programs_that_are_named_go_another_way(programs: dict[str, Program]) -> None:
    bridge, second = programs["xmpp-bridge"].environment, programs["xmpp-bridge-2"].environment

    assert second["TLIM_NATS_URL"] == "nats://127.0.0.1:20003"
    assert second["TLIM_XMPP_COMPONENT_PORT"] == "20004"
    assert bridge["TLIM_NATS_URL"] == f"nats://127.0.0.1:{Ports().nats}"
    assert "@127.0.0.1:20005/" in programs["message-store"].environment["TLIM_DATABASE_URL"]
    assert f"@127.0.0.1:{Ports().postgres}/" in programs["message-store-2"].environment["TLIM_DATABASE_URL"]


def test_the_token_keys_come_from_any_of_several_bridges(programs: dict[str, Program], tmp_path: Path) -> None:
    alone = {program.name: program for program in Stack(tmp_path, Ports()).services.all()}

    assert f":{Ports().gateway}/" in programs["file-api"].environment["TLIM_JWKS_URL"]
    assert f":{Ports().xmpp_bridge}/" in alone["file-api"].environment["TLIM_JWKS_URL"]


def test_the_gateway_knows_all_processes_of_a_service(programs: dict[str, Program]) -> None:
    ports, environment = Ports(), programs["gateway"].environment

    assert environment["TLIM_XMPP_BRIDGE"] == f"127.0.0.1:{ports.xmpp_bridge} 127.0.0.1:20001"
    assert environment["TLIM_FILE_API"] == f"127.0.0.1:{ports.file_api}"


@pytest.mark.parametrize(("xmpp", "second"), [("ejabberd", COMPONENT), ("prosody", f"bridge-2.{DOMAIN}")])
def test_with_prosody_each_bridge_has_a_component_of_its_own(tmp_path: Path, xmpp: str, second: str) -> None:
    stack = Stack(tmp_path, Ports(), xmpp, further=FURTHER)
    names = {program.name: program.environment.get("TLIM_COMPONENT_JID") for program in stack.services.all()}

    assert (names["xmpp-bridge"], names["xmpp-bridge-2"]) == (COMPONENT, second)

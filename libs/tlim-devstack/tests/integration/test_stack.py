"""The whole stack: doors on loopback only, killed parts come back, and nothing outlives the process runner."""

import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest
from tlim_devstack import postgres
from tlim_devstack.failures import StackError
from tlim_devstack.ports import Ports
from tlim_devstack.services import SERVICES
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until
from tlim_protocol.errors import ErrorCode

LOOPBACK = {"127.0.0.1", "::1"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A stack in a new directory of /tmp: other users can pass through what is above it, unlike pytest's own."""
    with TemporaryDirectory() as directory:
        stack = Stack(Path(directory), Ports.random(), demo_users=["alice"])
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def processes_of(stack: Stack) -> list[psutil.Process]:
    runner = psutil.Process(int((stack.home / "supervisord.pid").read_text()))
    return [runner, *runner.children(recursive=True)]


def test_only_this_machine_can_reach_it(stack: Stack) -> None:
    listening = {
        connection.laddr.ip
        for process in processes_of(stack)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert listening <= LOOPBACK


def test_no_secret_stands_in_a_command_line(stack: Stack) -> None:
    credentials = stack.credentials
    hidden = {*credentials.nats.values(), *credentials.postgres_roles.values(), *credentials.s3_admin}
    hidden |= {*credentials.s3_file_api, credentials.component, credentials.erlang_cookie, credentials.postgres_admin}
    shown = " ".join(word for process in processes_of(stack) for word in process.cmdline())
    assert not [secret for secret in hidden if secret in shown]


@pytest.mark.parametrize("name", ["nats", *SERVICES])
def test_a_killed_part_comes_back(stack: Stack, name: str) -> None:
    before = stack.supervisor.pid(name)
    stack.kill(name)
    wait_until(lambda: stack.supervisor.pid(name) not in (0, before), f"another {name}")
    stack.wait_ready(name)


def test_the_gateway_routes_every_door(stack: Stack) -> None:
    doors = ["/v1/sessions", "/v1/users", "/v1/files/unknown", "/v1/conversations/bob/messages"]
    doors += ["/v1/conversations", "/v1/sync", "/v1/search?q=x", "/v1/messages/unknown"]
    doors += ["/plugin/tlim/addSession", "/plugins/tlim/addSession", "/any/upload/mobileFileDownload?fileId=unknown"]
    with httpx.Client(base_url=stack.addresses.gateway) as http:
        answers = {door: http.get(door).status_code for door in doors}
        assert answers == dict.fromkeys(doors, httpx.codes.UNAUTHORIZED)
        assert http.get("/.well-known/jwks.json").json()["keys"]


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/openapi.json", "/upload/mobileFileUpload"])
def test_the_gateway_shows_nothing_else(stack: Stack, path: str) -> None:
    answer = httpx.get(stack.addresses.gateway + path)
    assert answer.status_code == httpx.codes.NOT_FOUND
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_service_that_is_away_is_a_503_with_our_code(stack: Stack) -> None:
    stack.stop_service("message-store")
    answer = httpx.get(f"{stack.addresses.gateway}/v1/conversations/bob/messages", timeout=20)
    stack.start_service("message-store")
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == ErrorCode.UNAVAILABLE


def test_a_stopped_part_stays_stopped_until_it_is_started(stack: Stack) -> None:
    stack.stop_service("file-api")
    assert stack.supervisor.states()["file-api"] == "STOPPED"
    with pytest.raises(StackError, match="file-api is not running"):
        stack.kill("file-api")
    stack.start_service("file-api")


def test_a_part_that_ends_at_once_is_reported_with_its_last_words(stack: Stack) -> None:
    stack.stop_service("nats")
    squatter = socket.create_server(("127.0.0.1", stack.ports.nats))
    with squatter, pytest.raises(StackError, match=r"nats does not start; see .*address already in use"):
        stack.start_service("nats")
    stack.restart("nats")


def test_data_survives_a_restart(stack: Stack) -> None:
    postgres.run_sql(stack.postgres_admin, "CREATE TABLE kept (); ")
    stack.stop()
    stack.start()
    assert postgres.run_sql(stack.postgres_admin, "SELECT count(*) FROM kept;") == "0"


def test_what_the_stack_keeps_is_closed_to_others_and_stays_so(stack: Stack) -> None:
    assert stat.S_IMODE(stack.home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert [path.name for path in stack.home.iterdir() if path.stat().st_mode & 0o077] == []
    statuses = [Path(f"/proc/{process.pid}/status").read_text() for process in processes_of(stack)]
    assert {status.partition("Umask:")[2].split()[0] for status in statuses} == {"0077"}


@pytest.mark.parametrize(
    ("port", "path"),
    [
        ("s3", "/"),
        ("s3", "/tlim-files/"),
        ("s3_filer", "/"),
        ("s3_filer", "/buckets/tlim-files/"),
        ("s3_master", "/dir/assign"),
        ("s3_master", "/dir/status"),
        ("xmpp_api", "/api/status"),
        ("xmpp_api", "/api/register"),
    ],
)
def test_a_program_of_this_machine_gets_nothing_without_a_key(stack: Stack, port: str, path: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{getattr(stack.ports, port)}{path}", trust_env=False)
    assert answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND}
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.skipif(os.geteuid() != 0, reason="there are no privileges to give up")
@pytest.mark.parametrize("name", ["postgres", "nats", "s3"])
def test_servers_that_need_no_root_do_not_run_as_root(stack: Stack, name: str) -> None:
    assert psutil.Process(stack.supervisor.pid(name)).uids().effective != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="there are no privileges to give up")
@pytest.mark.parametrize("name", ["postgres", "nats", "s3"])
def test_servers_keep_no_capability_where_others_can_pass_through(stack: Stack, name: str) -> None:
    process = psutil.Process(stack.supervisor.pid(name))
    on_the_way = (*stack.home.resolve().parents, *Path(process.exe()).parents)
    closed = [str(path) for path in on_the_way if not path.stat().st_mode & 0o001]
    if closed:
        pytest.skip(f"other users cannot pass through {closed[0]}, and then servers keep a capability")
    assert Path(f"/proc/{process.pid}/status").read_text().partition("CapEff:")[2].split()[0] == "0" * 16


def test_nothing_outlives_the_process_runner(stack: Stack) -> None:
    processes = processes_of(stack)
    os.kill(processes[0].pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(processes, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert len(gone) + len(alive) == len(processes)

"""The whole stack: killed parts come back, the gateway routes, and nothing outlives the process runner."""

import os
import signal
import socket
from collections.abc import Callable

import httpx
import psutil
import pytest
from tlim_devstack import postgres
from tlim_devstack.failures import StackError
from tlim_devstack.services import SERVICES
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until
from tlim_protocol.errors import ErrorCode


@pytest.mark.parametrize("name", ["nats", *SERVICES])
def test_a_killed_part_comes_back(stack: Stack, name: str) -> None:
    before = stack.supervisor.pid(name)
    stack.kill(name)
    wait_until(lambda: stack.supervisor.pid(name) not in (0, before), f"another {name}")
    stack.wait_ready(name)


def test_the_gateway_routes_every_door(stack: Stack) -> None:
    doors = ["/v1/sessions", "/v1/users", "/v1/files/unknown", "/v1/conversations/bob/messages"]
    doors += ["/v1/conversations", "/v1/sync", "/v1/search?q=x", "/v1/messages/unknown", "/v1/operations"]
    doors += ["/plugin/tlim/addSession", "/plugins/tlim/addSession", "/any/upload/mobileFileDownload?fileId=unknown"]
    with httpx.Client(base_url=stack.addresses.gateway, timeout=20) as http:
        answers = {door: http.get(door).status_code for door in doors}
        assert answers == dict.fromkeys(doors, httpx.codes.UNAUTHORIZED)
        assert http.get("/.well-known/jwks.json").json()["keys"]


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/upload/mobileFileUpload"])
def test_the_gateway_shows_nothing_else(stack: Stack, path: str) -> None:
    answer = httpx.get(stack.addresses.gateway + path, timeout=20)
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


def test_nothing_outlives_the_process_runner(processes: Callable[[], list[psutil.Process]]) -> None:
    running = processes()
    os.kill(running[0].pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(running, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]

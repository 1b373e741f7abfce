"""The health check of a service's container (deploy/image/healthy), against a service of the test."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.deploy.images import ROOT

Serve = Callable[..., int]


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    statuses: dict[str, int]

    def do_GET(self) -> None:
        body = f'{{"detail": "what is wrong at {self.path}"}}'.encode()
        self.send_response(self.statuses.get(self.path, 404))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing, to keep the output of the tests readable."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return what starts a service with the given statuses, and returns its port."""
    with ExitStack() as stack:

        def start(*, healthz: int = 200, readyz: int = 200) -> int:
            handler = type("_It", (_Service,), {"statuses": {"/healthz": healthz, "/readyz": readyz}})
            server = stack.enter_context(HTTPServer(("127.0.0.1", 0), handler))
            thread = Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server.server_port

        yield start


def check(port: int) -> subprocess.CompletedProcess[str]:
    """Run the check with a `kill` that only says what it was told, and fails: process 1 of this machine must live."""
    command = ["/bin/bash", str(ROOT / "deploy/image/healthy")]
    told = {"TLIM_PORT": str(port), "BASH_FUNC_kill%%": '() { echo "kill $*"; return 1; }'}
    return subprocess.run(command, env=told, capture_output=True, text=True, check=False)  # noqa: S603


def test_a_service_is_healthy_when_it_gets_on_and_is_ready(serve: Serve) -> None:
    done = check(serve())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_service_that_is_not_ready_is_unhealthy_and_says_why_and_goes_on(serve: Serve) -> None:
    done = check(serve(readyz=503))
    assert done.returncode == 1
    assert "503" in done.stdout
    assert "what is wrong at /readyz" in done.stdout
    assert "kill" not in done.stdout


def test_a_service_whose_background_work_is_stuck_says_why_and_is_told_to_end(serve: Serve) -> None:
    done = check(serve(healthz=503))
    assert done.returncode == 1
    assert "what is wrong at /healthz" in done.stdout
    assert re.findall(r"^kill .*", done.stdout, re.MULTILINE) == ["kill -TERM 1"]


def test_a_service_that_does_not_listen_is_unhealthy() -> None:
    assert check(1).returncode == 1

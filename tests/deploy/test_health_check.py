"""The health check of a service's container (deploy/image/healthy), against a service of the test."""

import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.deploy.images import ROOT


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200

    def do_GET(self) -> None:
        body = b'{"detail": "what is wrong"}'
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing, to keep the output of the tests readable."""


class _NotReady(_Service):
    status = 503


@pytest.fixture(params=[_Service, _NotReady])
def service(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Return the port of a service, and the status of its answer."""
    with HTTPServer(("127.0.0.1", 0), request.param) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, request.param.status
        server.shutdown()
        thread.join()


def check(port: int) -> subprocess.CompletedProcess[str]:
    command = ["/bin/bash", str(ROOT / "deploy/image/healthy")]
    return subprocess.run(command, env={"TLIM_PORT": str(port)}, capture_output=True, text=True, check=False)  # noqa: S603


def test_a_service_is_healthy_when_it_is_ready_and_otherwise_it_is_said_why(service: tuple[int, int]) -> None:
    port, status = service

    done = check(port)

    assert done.returncode == (0 if status == 200 else 1)
    assert ("503" in done.stdout, "what is wrong" in done.stdout) == (status == 503,) * 2


def test_a_service_that_does_not_listen_is_unhealthy() -> None:
    assert check(1).returncode == 1

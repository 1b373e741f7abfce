"""The health check of a container."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from tlim_runtime.probe import main


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"what is wrong")

    def log_message(self, *_: object) -> None:
        """Log nothing, to keep the output of the tests readable."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Health]]:
    class Answers(_Health):
        """Each test changes the status of its own class."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        monkeypatch.setenv("TLIM_PORT", str(server.server_port))
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield Answers
        server.shutdown()
        thread.join()


def test_a_ready_service_is_healthy(service: type[_Health]) -> None:
    service.status = 200
    assert main() == 0


def test_a_service_that_is_not_ready_is_unhealthy_and_says_why(
    service: type[_Health], capsys: pytest.CaptureFixture[str]
) -> None:
    service.status = 503
    assert main() == 1
    assert "what is wrong" in capsys.readouterr().out


def test_a_service_that_does_not_listen_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLIM_PORT", "1")
    assert main() == 1

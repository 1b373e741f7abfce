"""Whose address the gateway tells the bridge, which counts wrong passwords by it."""

import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tlim_devstack.layout import DEPLOY, program
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.waiting import accepts_connections, free_port

CLAIMED = "192.0.2.66, 203.0.113.9"
"""The client claims the first address; the proxy has added the second one, from which the client called."""


class Bridge(HTTPServer):
    """Answers each request with the X-Forwarded-For that it got."""

    class _Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = ", ".join(self.headers.get_all("X-Forwarded-For", [])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *arguments: object) -> None:
            del arguments

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self._Answer)


@pytest.fixture
def bridge() -> Iterator[int]:
    with Bridge() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def gateway(home: Path, bridge: int, proxies: dict[str, str]) -> Iterator[int]:
    ports = free_port(), free_port()
    environment = {
        "TLIM_PORT_GATEWAY": str(ports[0]),
        "TLIM_PORT_FILES": str(ports[1]),
        "TLIM_XMPP_BRIDGE": f"127.0.0.1:{bridge}",
        "PATH": os.environ["PATH"],
        "XDG_DATA_HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        **proxies,
    }
    command = [str(program("caddy")), "run", "--config", str(DEPLOY / "caddy" / "Caddyfile")]
    process = ServerProcess("gateway", dies_with_parent(command), home / "log", environment)
    try:
        process.wait_ready(lambda: accepts_connections(ports[0]))
        yield ports[0]
    finally:
        process.stop()


@pytest.mark.parametrize(
    ("proxies", "told"),
    [({}, "127.0.0.1"), ({"TLIM_TRUSTED_PROXIES": "10.0.0.0/8 127.0.0.1/32"}, "203.0.113.9")],
    ids=["nobody is believed", "a proxy is believed"],
)
def test_the_bridge_is_told_the_address_from_which_the_client_called(
    tmp_path: Path, bridge: int, proxies: dict[str, str], told: str
) -> None:
    with gateway(tmp_path, bridge, proxies) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        client.request("GET", "/.well-known/jwks.json", headers={"X-Forwarded-For": CLAIMED})
        assert client.getresponse().read().decode() == told
        client.close()

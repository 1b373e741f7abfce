from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from pydantic import ValidationError
from session_api.settings import Settings
from session_api.xmpp_accounts import XmppAccounts, XmppUnavailable


class Elsewhere(BaseHTTPRequestHandler):
    """Sends everybody on to an address of its own that answers, and notes who comes."""

    asked: list[tuple[str, str | None]]

    def do_POST(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    Elsewhere.asked = []
    with HTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Changed(BaseHTTPRequestHandler):
    """Refuses one command as an API that has changed does, and does all others."""

    refused = ""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        is_refused = self.path == f"/api/{self.refused}"
        answer = b'{"status": "error", "code": 10, "message": "no such argument"}' if is_refused else b"0"
        self.send_response(400 if is_refused else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("command", ["check_account", "change_password", "kick_user"])
async def test_nobody_counts_as_shut_out_when_the_server_refuses_a_command(server: HTTPServer, command: str) -> None:
    server.RequestHandlerClass, Changed.refused = Changed, command
    accounts = XmppAccounts(f"http://127.0.0.1:{server.server_port}/api", "example.org", "Basic secret")
    with pytest.raises(XmppUnavailable, match="no such argument"):
        await accounts.shut_out("alice")


async def test_a_redirect_makes_no_account_and_takes_no_password_along(server: HTTPServer) -> None:
    accounts = XmppAccounts(f"http://127.0.0.1:{server.server_port}/api", "example.org", "Basic secret")
    with pytest.raises(XmppUnavailable):
        await accounts.ensure({"alice": "secret"}, reset=False)
    assert Elsewhere.asked == [("/api/register", "Basic secret")]


async def test_a_server_that_makes_none_of_several_accounts_is_one_failure(server: HTTPServer) -> None:
    accounts = XmppAccounts(f"http://127.0.0.1:{server.server_port}/api", "example.org", "Basic secret")
    with pytest.raises(XmppUnavailable, match="answers register with 302"):
        await accounts.ensure({"alice": "secret", "bob": "secret", "carol": "secret"}, reset=False)


def test_an_api_without_credentials_stops_the_start() -> None:
    required = {"port": 0, "nats_url": "", "nats_user": "", "nats_password": "", "jwks_url": ""}
    database = {"database_url": "postgresql://a:b@c/d", "xmpp_admin_url": "http://127.0.0.1/api"}
    with pytest.raises(ValidationError, match="xmpp_admin_url needs xmpp_admin_token"):
        Settings.model_validate({**required, **database, "xmpp_admin_user": "hr@example.org"})
    assert Settings.model_validate({**required, **database, "xmpp_admin_token": "t"}).xmpp_admin_url

"""The commands that ask the page of operations, against a small server of the same addresses."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from tlim_admin.__main__ import app
from typer.testing import CliRunner

TOKEN = "a-token-of-scope-admin-that-is-long-enough"
LETTERS = [{"seq": seq, "at": 1_800_000_000_000, "subject": "tlim.in.MTT-000.3", "reason": "no JSON"} for seq in (9, 4)]


class Page(BaseHTTPRequestHandler):
    """One dead letter a page, one message, and what was published again."""

    redriven: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        is_second = "before=9" in self.path
        documents: dict[str, Any] = {
            "dead-letters": {"items": [LETTERS[is_second]], "next_before": None if is_second else 9},
            "messages": {
                "rows": [{"seq": 7}],
                "steps": [{"at": 0, "service": "xmpp-bridge", "instance": "a", "step": "received", "detail": ""}],
            },
        }
        self._answer(documents[self.path.split("/")[3].partition("?")[0]])

    def do_POST(self) -> None:
        self.redriven.append(self.path)
        self._answer({})

    def _answer(self, document: dict[str, Any]) -> None:
        is_admin = self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = json.dumps(document if is_admin else {"detail": "no token"}).encode()
        self.send_response(200 if is_admin else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Page.redriven.clear()
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("TLIM_GATEWAY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("TLIM_ADMIN_TOKEN", TOKEN)
        yield
        server.shutdown()
        thread.join()


def run(*arguments: str) -> str:
    return CliRunner().invoke(app, arguments).output


def test_dead_letters_are_listed_over_all_pages_and_nothing_is_published() -> None:
    said = run("redrive")
    assert said.splitlines()[0] == "9  2027-01-15 08:00:00.000  tlim.in.MTT-000.3  no JSON"
    assert said.splitlines()[-1] == "dead letters: 2"
    assert Page.redriven == []


def test_all_of_them_are_published_again_oldest_first() -> None:
    assert run("redrive", "--all") == "published again: 2\n"
    assert Page.redriven == [f"/v1/operations/dead-letters/{seq}/redrive" for seq in (4, 9)]


def test_the_way_of_a_message_is_shown() -> None:
    assert run("trace", "m/1") == "in the log: seq 7\n1970-01-01 00:00:00.000  xmpp-bridge a: received\n"


def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLIM_ADMIN_TOKEN", "another-token-that-is-long-enough-to-be-read")
    assert run("trace", "m1") == "tlim-admin: the gateway answers 401: no token\n"

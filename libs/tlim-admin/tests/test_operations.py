"""The commands that ask the page of operations, against a small server of the same addresses."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from tlim_admin.__main__ import app
from tlim_admin.operations import commands
from tlim_admin.settings import DoctorSettings
from tlim_runtime.settings import load_settings
from typer.testing import CliRunner

TOKEN = "a-token-of-scope-admin-that-is-long-enough"
LETTERS = [{"seq": seq, "at": 1_800_000_000_000, "subject": "tlim.in.MTT-000.3", "reason": "no JSON"} for seq in (9, 4)]


class Page(BaseHTTPRequestHandler):
    """One dead letter a page, one message, and what was published again."""

    redriven: ClassVar[list[str]] = []
    refused: ClassVar[set[str]] = set()

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
        if self.path.split("/")[4] in self.refused:
            self._send(409, b'{"detail": "no stream takes it"}')
        else:
            self.redriven.append(self.path)
            self._answer({})

    def _answer(self, document: dict[str, Any]) -> None:
        if self.path.endswith("/html"):
            self._send(200, b"<html>Sign in</html>")
        elif self.headers["Authorization"] == f"Bearer {TOKEN}":
            self._send(200, json.dumps(document).encode())
        else:
            self._send(401, b'{"detail": "no token"}')

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Page.redriven.clear()
    Page.refused.clear()
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


def test_a_refused_letter_keeps_none_of_the_others_back_and_is_named() -> None:
    Page.refused.add("4")
    ran = CliRunner().invoke(app, ["redrive", "--all"])
    refusal = "the gateway answers 409: no stream takes it"
    assert (ran.exit_code, ran.stdout) == (1, f"published again: 1\nfailed: 4: {refusal}\n")
    assert Page.redriven == ["/v1/operations/dead-letters/9/redrive"]

    ran = CliRunner().invoke(app, ["redrive", "4", "9", "--json"])
    document = json.loads(ran.stdout)
    assert (ran.exit_code, document["redriven"], document["failed"]) == (1, [9], [{"seq": 4, "reason": refusal}])


def test_without_a_valid_token_nothing_more_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLIM_ADMIN_TOKEN", TOKEN.upper())
    done = CliRunner().invoke(app, ["redrive", "4", "9", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failed"] == [{"seq": 4, "reason": "the gateway answers 401: no token"}]


def test_the_way_of_a_message_is_shown() -> None:
    assert run("trace", "m/1") == "in the log: seq 7\n1970-01-01 00:00:00.000  xmpp-bridge a: received\n"


def test_the_way_of_a_message_is_asked_for_in_a_step(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "steps", lambda: nullcontext(recorded))
    run("trace", "m1")
    assert recorded.names == ["asking"]


def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLIM_ADMIN_TOKEN", "another-token-that-is-long-enough-to-be-read")
    assert run("trace", "m1") == "tlim-admin: the gateway answers 401: no token\n"


def test_a_page_for_people_in_the_place_of_the_gateway_is_one_line() -> None:
    url = f"{os.environ['TLIM_GATEWAY']}/v1/operations/messages/html"
    assert run("trace", "html") == f"tlim-admin: {url} gives no JSON: is it the gateway?\n"


def test_an_address_without_its_scheme_is_refused_before_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GATEWAY", "S3_ENDPOINT_URL", "S3_PUBLIC_URL", "XMPP_ADMIN_URL", "JWKS_URL"):
        monkeypatch.setenv(f"TLIM_{name}", "chat.example.org")
    told = "must begin with http:// or https://"
    assert run("trace", "m1") == f"TLIM_GATEWAY: Value error, {told}\n"
    with pytest.raises(SystemExit):
        load_settings(DoctorSettings)
    assert capsys.readouterr().err.count(told) == 5

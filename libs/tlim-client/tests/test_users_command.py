"""`tlim users import`, as typed, against a made-up server."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tlim_client.cli.app import app
from tlim_client.cli.context import Doors
from tlim_client.http import HttpClient
from tlim_protocol.errors import ErrorCode
from typer.testing import CliRunner, Result

REPORT: dict[str, Any] = {
    "created": 2,
    "updated": 1,
    "unchanged": 0,
    "accounts_created": 1,
    "accounts_changed": 0,
    "invalid": [],
    "ignored_columns": [],
}


class ImportDoors(Doors):
    """A gateway that gives one answer to everything."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.answer = answer
        self.requests: list[httpx.Request] = []

    def http(self, gateway: str, token: str | None = None) -> HttpClient:
        return HttpClient(gateway, token=token, transport=httpx.MockTransport(self._serve))

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer


def typed(doors: Doors, *arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(
        app, ["users", "import", *arguments], obj=doors, env={"TLIM_PROFILE": None, **environment}
    )


@pytest.mark.parametrize(
    ("name", "options", "media_type"),
    [
        ("people.csv", [], "text/csv"),
        ("people.JSON", [], "application/json"),
        ("people", [], "text/csv"),
        ("people.txt", ["--format", "json"], "application/json"),
    ],
)
def test_the_file_is_sent_as_what_it_is(tmp_path: Path, name: str, options: list[str], media_type: str) -> None:
    doors = ImportDoors(httpx.Response(200, json=REPORT))
    file = tmp_path / name
    file.write_bytes(b"user_id\nbob\n")

    result = typed(doors, str(file), *options, TLIM_ADMIN_TOKEN="adm1n")

    (request,) = doors.requests
    assert (request.content, request.headers["Content-Type"]) == (b"user_id\nbob\n", media_type)
    assert request.headers["Authorization"] == "Bearer adm1n"
    assert result.stdout == "2 created, 1 updated, 0 unchanged.\nXMPP accounts: 1 created.\n"
    assert (result.exit_code, result.stderr) == (0, "")


def test_every_row_that_was_left_out_is_told_and_the_command_fails(tmp_path: Path) -> None:
    bad = {"row": 3, "code": ErrorCode.USER_UNKNOWN, "field": "user_id", "detail": "a user_id is blank\x1b"}
    report = {**REPORT, "invalid": [bad], "ignored_columns": ["team"], "accounts_created": 0, "accounts_changed": 4}
    doors = ImportDoors(httpx.Response(200, json=report))
    file = tmp_path / "people.csv"
    file.write_bytes(b"x")
    arguments = (str(file), "--admin-token", "adm1n", "--reset-passwords")

    result = typed(doors, *arguments)
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (
        1,
        [
            "XMPP accounts: 0 created, 4 given a new password.",
            "Columns not used: team.",
            "Rows left out: 1.",
            f"  row 3: a user_id is blank\N{REPLACEMENT CHARACTER} ({ErrorCode.USER_UNKNOWN})",
        ],
    )
    assert doors.requests[0].url.params["reset_passwords"] == "true"
    as_json = typed(doors, *arguments, "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (1, report)


def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    refusal = {"code": ErrorCode.NOT_ALLOWED, "detail": "this needs a token with scope admin"}
    doors = ImportDoors(httpx.Response(403, json=refusal, headers={"Content-Type": "application/problem+json"}))
    file = tmp_path / "people.csv"
    file.write_bytes(b"x")
    result = typed(doors, str(file), "--admin-token", "x")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "scope admin" in result.stderr

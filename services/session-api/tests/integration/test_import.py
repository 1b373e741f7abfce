"""Importing files of users: good rows together, bad rows told, the same again no change; XMPP accounts on the way."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr
from session_api.import_endpoints import MAX_FILE_BYTES
from session_api.settings import Settings
from session_api.xmpp_accounts import ALREADY_REGISTERED
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AuditAction

AsUser = Callable[..., httpx.AsyncClient]

PATH = "/v1/users/import"
NOTHING: dict[str, Any] = {
    "created": 0,
    "updated": 0,
    "unchanged": 0,
    "accounts_created": 0,
    "accounts_changed": 0,
    "invalid": [],
    "ignored_columns": [],
}


class FakeEjabberd:
    """mod_http_api with the commands that we use, over a real socket; `status` and `refusal` make it refuse."""

    def __init__(self) -> None:
        self.accounts: dict[str, str] = {}
        self.kicked: list[str] = []
        self.authorizations: set[str] = set()
        self.status = 200
        self.takes = 10_000  # further accounts, before it is away
        self.url = ""
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.set()
        await self.answers.wait()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])}
        arguments = json.loads(await reader.readexactly(int(fields["content-length"])))
        self.authorizations.add(fields.get("authorization", ""))
        status, answer = self._answer(head.split()[1].removeprefix("/api/"), arguments)
        body = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    def _answer(self, command: str, arguments: dict[str, str]) -> tuple[int, object]:
        assert arguments["host"] == "im.itonglian.com"
        user = arguments["user"]
        if self.status != 200:
            return self.status, {"code": 1, "message": "no such luck"}
        if command == "check_account":
            return 200, int(user not in self.accounts)
        if command == "kick_user":
            self.kicked.append(user)
        elif command == "change_password":
            self.accounts[user] = arguments["newpass"]
        else:
            return self._register(user, arguments["password"])
        return 200, "done"

    def _register(self, user: str, password: str) -> tuple[int, object]:
        if user in self.accounts:
            return 409, {"code": ALREADY_REGISTERED, "message": f"User {user} already registered"}
        if password == "not taken":
            return 500, {
                "code": 10_001,
                "message": "Can't register user: The password contains unacceptable characters",
            }
        if len(password) < 4:
            return 400, {"code": 10_010, "message": "the password is weak"}
        if self.takes <= 0:
            return 500, {"code": 99, "message": "down"}
        self.takes -= 1
        self.accounts[user] = password
        return 200, "done"


@pytest_asyncio.fixture
async def ejabberd() -> AsyncIterator[FakeEjabberd]:
    fake = FakeEjabberd()
    async with await asyncio.start_server(fake.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        fake.url = f"http://{host}:{port}/api"
        yield fake


@pytest_asyncio.fixture
async def hr(
    *,
    ejabberd: FakeEjabberd,
    settings: Settings,
    running: Callable[[Settings], AbstractAsyncContextManager[FastAPI]],
    client_of: Callable[..., httpx.AsyncClient],
) -> AsyncIterator[httpx.AsyncClient]:
    """An administrator of a service that makes accounts."""
    account = {"xmpp_admin_user": "hr@im.itonglian.com", "xmpp_admin_password": SecretStr("s3cret")}
    async with running(settings.model_copy(update={"xmpp_admin_url": ejabberd.url, **account})) as app:
        yield client_of(app, "importer", scope="admin")


async def post_csv(client: httpx.AsyncClient, text: str, **params: str) -> httpx.Response:
    return await client.post(PATH, content=text, headers={"Content-Type": "text/csv"}, params=params)


async def names(admin: httpx.AsyncClient) -> dict[str, str]:
    items = (await admin.get("/v1/users", params={"limit": 200})).json()["items"]
    return {one["user_id"]: one["name"] for one in items if one["active"]}


async def test_a_csv_file_is_imported_and_again_changes_nothing(admin: httpx.AsyncClient) -> None:
    text = "\ufeffuser_id,name,department\r\nAlice,爱丽丝,1\r\nbob,,2\r\n"
    first = await post_csv(admin, text)
    assert (first.status_code, first.json()) == (
        200,
        {**NOTHING, "created": 2, "ignored_columns": ["department"]},
    )
    before = (await admin.get("/v1/users")).json()
    assert (await post_csv(admin, text)).json() == {**NOTHING, "unchanged": 2, "ignored_columns": ["department"]}
    assert (await admin.get("/v1/users")).json() == before
    assert await names(admin) == {"alice": "爱丽丝", "bob": "bob"}


async def test_a_json_array_is_imported_names_stay_and_who_left_is_active_again(admin: httpx.AsyncClient) -> None:
    for user, name in (("alice", "Alice"), ("bob", "Bob"), ("carol", "Carol")):
        await admin.put(f"/v1/users/{user}", json={"name": name})
    await admin.delete("/v1/users/carol")
    rows = [{"user_id": "alice"}, {"user_id": "bob", "name": "Robert"}, {"user_id": "carol"}, {"user_id": "dave"}]
    answer = await admin.post(PATH, json=rows)
    assert answer.json() == {**NOTHING, "created": 1, "updated": 2, "unchanged": 1}
    assert await names(admin) == {"alice": "Alice", "bob": "Robert", "carol": "Carol", "dave": "dave"}


async def test_good_rows_are_imported_and_every_bad_one_is_told(admin: httpx.AsyncClient) -> None:
    answer = await post_csv(admin, "user_id,name\nalice,Alice\n,Nobody\nbob\nALICE,Again\nno@id,x\ndave,Dave\n")
    report = answer.json()
    invalid = report.pop("invalid")
    assert report == {**{key: value for key, value in NOTHING.items() if key != "invalid"}, "created": 2}
    assert [(one["row"], one["code"], one["field"]) for one in invalid] == [
        (2, ErrorCode.USER_UNKNOWN, "user_id"),
        (3, ErrorCode.FIELD_INVALID, None),
        (4, ErrorCode.FIELD_INVALID, "user_id"),
        (5, ErrorCode.FIELD_INVALID, "user_id"),
    ]
    assert await names(admin) == {"alice": "Alice", "dave": "Dave"}
    (entry,) = (await admin.get("/v1/audit")).json()["items"]
    assert (entry["action"], entry["detail"]["created"], entry["detail"]["invalid"]) == ("users.imported", 2, 4)


async def test_a_whole_company_is_one_import(admin: httpx.AsyncClient) -> None:
    text = "user_id,name\n" + "".join(f"u{one},用户{one}\n" for one in range(50_000))
    assert (await post_csv(admin, text)).json() == {**NOTHING, "created": 50_000}
    assert (await post_csv(admin, text)).json() == {**NOTHING, "unchanged": 50_000}
    assert (await post_csv(admin, text + "one-more,x\n")).status_code == 413


async def test_a_file_that_never_ends_is_408(admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_api.import_endpoints.FILE_S", 0.1)

    async def endless() -> AsyncIterator[bytes]:
        yield b"user_id\n"
        await asyncio.Event().wait()

    async with asyncio.timeout(60):
        answer = await admin.post(PATH, content=endless(), headers={"Content-Type": "text/csv"})
    assert (answer.status_code, answer.headers["Connection"]) == (408, "close")


async def test_two_imports_of_the_same_people_at_once_do_not_deadlock(admin: httpx.AsyncClient) -> None:
    rows = [{"user_id": f"u{one}"} for one in range(300)]
    answers = await asyncio.gather(*(admin.post(PATH, json=some) for some in (rows, rows[::-1], rows, rows[::-1])))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sum(answer.json()["created"] for answer in answers) == 300


@pytest.mark.parametrize(
    ("media_type", "content", "status", "code"),
    [
        ("text/plain", b"user_id\nbob\n", 415, None),
        ("text/csv; charset=utf-8", b"name\nbob\n", 422, ErrorCode.FIELD_INVALID),
        ("application/json", b"{", 400, ErrorCode.JSON_INVALID),
        ("application/json", b"{}", 422, ErrorCode.NOT_AN_ARRAY),
        ("text/csv", b"user_id\n" + b"x" * MAX_FILE_BYTES, 413, ErrorCode.FIELD_INVALID),
        ("text/csv", b"user_id,password\nbob,secret\n", 422, ErrorCode.FIELD_INVALID),
    ],
)
async def test_what_cannot_be_imported_is_refused_and_nothing_happens(
    admin: httpx.AsyncClient, media_type: str, content: bytes, status: int, code: ErrorCode | None
) -> None:
    answer = await admin.post(PATH, content=content, headers={"Content-Type": media_type})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json().get("code") == code
    assert (await admin.get("/v1/users")).json()["items"] == []
    assert (await admin.get("/v1/audit")).json()["items"] == []


async def test_only_administrators_import(as_user: AsUser, stranger: httpx.AsyncClient) -> None:
    assert (await post_csv(stranger, "user_id\nbob\n")).status_code == 401
    assert (await post_csv(as_user("alice"), "user_id\nbob\n")).status_code == 403


async def test_accounts_are_made_for_rows_with_a_password_and_keep_the_one_they_have(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd
) -> None:
    text = "user_id,name,password\nAlice,Alice,open sesame\nbob,Bob,\n"
    assert (await post_csv(hr, text)).json() == {**NOTHING, "created": 2, "accounts_created": 1}
    assert ejabberd.accounts == {"alice": "open sesame"}
    again = text.replace("open sesame", "another one")
    assert (await post_csv(hr, again)).json() == {**NOTHING, "unchanged": 2}
    assert ejabberd.accounts == {"alice": "open sesame"}
    changed = await post_csv(hr, again, reset_passwords="true")
    assert changed.json() == {**NOTHING, "unchanged": 2, "accounts_changed": 1}
    assert ejabberd.accounts == {"alice": "another one"}
    assert ejabberd.authorizations == {f"Basic {base64.b64encode(b'hr@im.itonglian.com:s3cret').decode()}"}


async def test_an_account_that_the_xmpp_server_refuses_is_a_row_that_is_left_out(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd
) -> None:
    report = (await post_csv(hr, "user_id,password\nalice,long enough\nbob,x\ncarol,\nno@id,x\n")).json()
    assert [(one["row"], one["field"]) for one in report["invalid"]] == [(2, "password"), (4, "user_id")]
    assert "the password is weak" in report["invalid"][0]["detail"]
    assert await names(hr) == {"alice": "alice", "carol": "carol"}
    assert list(ejabberd.accounts) == ["alice"]


async def test_when_the_xmpp_server_goes_away_halfway_nobody_is_imported_and_the_same_again_goes_on(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd
) -> None:
    text = "user_id,password\n" + "".join(f"u{one:02},secret\n" for one in range(40))
    ejabberd.takes = 20
    answer = await post_csv(hr, text)
    assert (answer.status_code, answer.json()["code"]) == (503, ErrorCode.UNAVAILABLE)
    assert await names(hr) == {}
    ejabberd.takes = 1_000
    report = (await post_csv(hr, text)).json()
    assert (report["created"], report["accounts_created"]) == (40, 20)


async def test_whose_password_was_to_change_is_in_the_audit_log_although_the_xmpp_server_went_away(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd
) -> None:
    await post_csv(hr, "user_id,password\nalice,secret\n")
    ejabberd.takes = 0
    answer = await post_csv(hr, "user_id,password\nAlice,taken over\nbob,secret\ncarol,\n", reset_passwords="true")
    assert (answer.status_code, await names(hr)) == (503, {"alice": "alice"})
    told = (await hr.get("/v1/audit")).json()["items"]
    assert [(one["action"], one["target"]) for one in reversed(told)] == [
        (AuditAction.ACCOUNTS_MAKE, None),
        (AuditAction.USERS_IMPORTED, None),
        (AuditAction.ACCOUNT_RESET, "alice"),
        (AuditAction.ACCOUNT_RESET, "bob"),
    ]
    assert told[-1]["detail"] == {"accounts": 1}
    assert {one["request_id"] for one in told[:2]} == {answer.headers["X-Request-ID"]}


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_an_api_that_does_not_let_us_in_is_an_outage(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd, status: int
) -> None:
    ejabberd.status = status
    assert (await post_csv(hr, "user_id,password\nbob,secret\n")).status_code == 503


async def test_no_password_reaches_the_logs_or_the_database(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd, capsys: pytest.CaptureFixture[str]
) -> None:
    await post_csv(hr, "user_id,password\nbob,hunter2\ncarol,hunter2\u0000\n")
    ejabberd.status = 500
    await post_csv(hr, "user_id,password\ndave,hunter2\n")
    kept = [(await hr.get(path)).text for path in ("/v1/users", "/v1/audit")]
    assert "hunter2" not in "".join([*kept, *capsys.readouterr()])


async def test_a_password_that_the_server_does_not_take_is_an_invalid_row_and_the_rest_goes_in(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd
) -> None:
    text = "user_id,password\nalice,s3cret\nbob,e😀\ncarol,not taken\ndave,שלום1\nerin,s3cret\n"
    answer = await post_csv(hr, text)
    assert answer.status_code == 200
    report = answer.json()
    assert [(one["row"], one["code"], one["field"]) for one in report["invalid"]] == [
        (row, ErrorCode.FIELD_INVALID, "password") for row in (2, 3, 4)
    ]
    assert (report["created"], report["accounts_created"]) == (2, 2)
    assert set(ejabberd.accounts) == {"alice", "erin"}


async def test_while_an_import_makes_accounts_another_one_is_told_to_wait_and_requests_have_every_connection(
    *,
    ejabberd: FakeEjabberd,
    settings: Settings,
    running: Callable[[Settings], AbstractAsyncContextManager[FastAPI]],
    client_of: Callable[..., httpx.AsyncClient],
) -> None:
    narrow = settings.model_copy(update={"xmpp_admin_url": ejabberd.url, "database_pool_size": 1})
    async with running(narrow) as app:
        hr = client_of(app, "importer", scope="admin")
        ejabberd.answers.clear()
        first = asyncio.create_task(post_csv(hr, "user_id,password\nalice,s3cret\n"))
        await ejabberd.asked.wait()
        second = await post_csv(hr, "user_id,password\nalice,another\n")
        assert (second.status_code, second.json()["code"]) == (409, ErrorCode.UNAVAILABLE)
        assert (await post_csv(hr, "user_id\nbob\n")).status_code == 200
        ejabberd.answers.set()
        assert (await first).json()["accounts_created"] == 1
        again = await post_csv(hr, "user_id,password\nalice,another\n")
    assert again.json()["unchanged"] == 1
    assert ejabberd.accounts == {"alice": "s3cret"}


async def test_a_deactivated_users_account_is_closed_and_an_import_opens_it_again(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd
) -> None:
    text = "user_id,password\nalice,s3cret\nbob,\n"
    await post_csv(hr, text)
    assert [(await hr.delete(f"/v1/users/{user}")).status_code for user in ("alice", "bob")] == [204, 204]
    assert (ejabberd.kicked, list(ejabberd.accounts)) == (["alice"], ["alice"])
    assert len(ejabberd.accounts["alice"]) > 40
    told = (await hr.get("/v1/audit", params={"target": "alice"})).json()["items"]
    assert [one["action"] for one in told[:2]] == [AuditAction.USER_DEACTIVATED, AuditAction.ACCOUNT_CLOSE]
    await post_csv(hr, text, reset_passwords="true")
    assert (ejabberd.accounts, set(await names(hr))) == ({"alice": "s3cret"}, {"alice", "bob"})


async def test_while_the_xmpp_server_is_away_nobody_is_deactivated(
    hr: httpx.AsyncClient, ejabberd: FakeEjabberd
) -> None:
    await post_csv(hr, "user_id,password\nalice,s3cret\n")
    ejabberd.status = 500
    answer = await hr.delete("/v1/users/alice")
    assert (answer.status_code, answer.json()["code"]) == (503, ErrorCode.UNAVAILABLE)
    assert set(await names(hr)) == {"alice"}
    assert (await hr.delete("/v1/users/ghost")).status_code == 404
    ejabberd.status = 200
    assert (await hr.delete("/v1/users/alice")).status_code == 204

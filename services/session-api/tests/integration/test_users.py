"""The users directory: imports by administrators, people seen once, and who is known."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from session_api import users_service
from session_api.dependencies import DeactivatedUsers
from session_api.settings import Settings
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import UsersDeactivated

AsUser = Callable[..., httpx.AsyncClient]
Running = Callable[[Settings], AbstractAsyncContextManager[FastAPI]]


async def test_put_creates_renames_and_activates_again(admin: httpx.AsyncClient) -> None:
    created = (await admin.put("/v1/users/Bob", json={"name": "鲍勃"})).json()
    assert (created["user_id"], created["name"], created["active"]) == ("bob", "鲍勃", True)
    assert (await admin.delete("/v1/users/bob")).status_code == 204
    again = (await admin.put("/v1/users/bob", json={})).json()
    assert (again["name"], again["active"], again["created_at"]) == ("bob", True, created["created_at"])


@pytest.mark.parametrize(
    ("user_id", "body", "status", "code"),
    [
        ("bob", {"name": ""}, 422, ErrorCode.FIELD_INVALID),
        ("bob", {"name": "x" * 129}, 422, ErrorCode.FIELD_INVALID),
        ("bob", {"name": "a\u0000"}, 422, ErrorCode.FIELD_INVALID),
        ("bob", {"nmae": "Bob"}, 422, ErrorCode.FIELD_INVALID),
        ("a@b", {}, 422, ErrorCode.FIELD_INVALID),
        ("%20", {}, 404, ErrorCode.USER_UNKNOWN),
    ],
)
async def test_a_user_that_makes_no_sense_is_refused(
    admin: httpx.AsyncClient, user_id: str, body: dict[str, Any], status: int, code: ErrorCode
) -> None:
    answer = await admin.put(f"/v1/users/{user_id}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_many_are_imported_at_once_and_counted(admin: httpx.AsyncClient) -> None:
    users = [{"user_id": f"u{one}", "name": f"用户{one}"} for one in range(500)]
    assert (await admin.post("/v1/users", json={"users": users[:300]})).json() == {"created": 300, "updated": 0}
    assert (await admin.post("/v1/users", json={"users": users})).json() == {"created": 200, "updated": 300}


async def test_an_import_with_bad_rows_names_them_all_and_imports_nobody(admin: httpx.AsyncClient) -> None:
    users = [{"user_id": "bob"}, {"user_id": ""}, {"user_id": "BOB"}, {"user_id": "carol", "name": "x" * 129}]
    answer = await admin.post("/v1/users", json={"users": users})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert (problem["code"], problem["field"]) == (ErrorCode.FIELD_INVALID, "users.1.user_id")
    assert [(one["row"], one["code"], one["field"]) for one in problem["rows"]] == [
        (1, ErrorCode.USER_UNKNOWN, "user_id"),
        (2, ErrorCode.FIELD_INVALID, "user_id"),
        (3, ErrorCode.FIELD_INVALID, "name"),
    ]
    assert (await admin.get("/v1/users")).json()["items"] == []


async def test_the_list_is_paged_by_id(admin: httpx.AsyncClient) -> None:
    await admin.post("/v1/users", json={"users": [{"user_id": one} for one in ("李雷", "b", "a-1", "a", "c")]})
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await admin.get("/v1/users", params=params)).json()
        seen += [one["user_id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["a", "a-1", "b", "c", "李雷"]


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("al", ["al_ice", "alan"]), ("AL_", ["al_ice"]), ("爱", ["al_ice"]), ("smith", ["bob"]), ("%", []), ("x", [])],
)
async def test_search_is_by_the_start_of_id_or_name(admin: httpx.AsyncClient, prefix: str, found: list[str]) -> None:
    names = {"al_ice": "爱丽丝", "alan": "Turing", "bob": "Smith", "carol": "C"}
    users = [{"user_id": user_id, "name": name} for user_id, name in names.items()]
    await admin.post("/v1/users", json={"users": users})
    page = (await admin.get("/v1/users", params={"prefix": prefix})).json()
    assert [one["user_id"] for one in page["items"]] == found


async def test_a_prefix_with_a_control_character_is_refused(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/v1/users", params={"prefix": "\u0000"})).status_code == 422


async def test_more_deactivated_users_than_the_services_hear_of_show_in_readiness(
    running: Running, client_of: AsUser, settings: Settings, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users_service, "MAX_DEACTIVATED", 1)
    was_read = asyncio.Event()

    async def read(self: DeactivatedUsers) -> UsersDeactivated:
        found = await read_them(self)
        was_read.set()
        return found

    read_them = DeactivatedUsers.read
    monkeypatch.setattr(DeactivatedUsers, "read", read)
    await admin.put("/v1/users/bob", json={})
    for expected in (None, "1 or more: tokens of those that were deactivated first may count"):
        was_read.clear()
        async with running(settings) as app, client_of(app) as prober:
            await was_read.wait()
            async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
                with attempt:
                    ready = await prober.get("/readyz")
                    assert ready.status_code == 200
                    assert ready.json().get("warnings", {}).get("deactivated users") == expected
        await admin.delete("/v1/users/bob")


async def test_deactivating_again_is_no_error_and_a_stranger_is(admin: httpx.AsyncClient) -> None:
    await admin.put("/v1/users/bob", json={})
    assert [(await admin.delete("/v1/users/Bob")).status_code for _ in range(2)] == [204, 204]
    assert (await admin.get("/v1/users")).json()["items"][0]["active"] is False
    answer = await admin.delete("/v1/users/ghost")
    assert (answer.status_code, answer.json()["code"]) == (404, ErrorCode.USER_UNKNOWN)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/bob"), ("POST", ""), ("GET", ""), ("DELETE", "/bob")])
async def test_only_administrators_use_the_directory(
    as_user: AsUser, stranger: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await stranger.request(method, f"/v1/users{path}", json={})).status_code == 401
    answer = await as_user("alice").request(method, f"/v1/users{path}", json={})
    assert (answer.status_code, answer.json()["code"]) == (403, ErrorCode.NOT_ALLOWED)

"""TLIM_TRUST_REQUEST_USER: callers without a token name the user, on the specification's endpoints only."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tlim_protocol.errors import ErrorCode

AsUser = Callable[..., httpx.AsyncClient]

ADD = "/plugin/tlim/addSession"
SAID = {"session_type": "1", "subscribers": '[{"user_id":"bob"}]'}


@pytest.fixture
def overrides() -> dict[str, Any]:
    return {"trust_request_user": True}


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("name", ["request_user", "session_user", "user_id"])
async def test_the_named_user_is_the_caller(stranger: httpx.AsyncClient, name: str) -> None:
    created = (await stranger.post(ADD, data=SAID | {name: "Alice"})).json()
    assert created["session_user"] == "alice"
    said = {"session_id": created["session_id"], "session_name": "x", name: "bob"}
    assert (await stranger.get("/plugin/tlim/modifySession", params=said)).json()["result"] == "ok"
    answer = await stranger.get("/plugin/tlim/deleteSession", params={"session_id": created["session_id"], name: "bob"})
    assert answer.json()["result_detail"] == ErrorCode.NOT_ALLOWED


@pytest.mark.usefixtures("people")
async def test_a_named_user_nobody_knows_is_refused_and_not_created(
    stranger: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    answer = await stranger.post(ADD, json={**SAID, "request_user": "ghost"})
    assert answer.json()["result_detail"] == ErrorCode.SESSION_USER_UNKNOWN
    assert (await admin.get("/v1/users", params={"prefix": "ghost"})).json()["items"] == []


@pytest.mark.usefixtures("people")
async def test_a_creator_who_is_not_named_is_missing(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.post(ADD, data=SAID | {"request_user": " "})
    assert (answer.status_code, answer.json()["result_detail"]) == (200, ErrorCode.SESSION_USER_UNKNOWN)


async def test_an_edit_without_any_user_is_401(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.post("/plugin/tlim/modifySession", data={"session_id": "x", "session_name": "y"})
    assert answer.status_code == 401


@pytest.mark.usefixtures("people")
async def test_a_token_goes_before_a_name(as_user: AsUser) -> None:
    answer = await as_user("alice").post(ADD, data=SAID | {"request_user": "carol"})
    assert answer.json()["session_user"] == "alice"


async def test_a_bad_token_is_401_whoever_is_named(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.post(ADD, data=SAID | {"request_user": "alice"}, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401


async def test_the_modern_api_trusts_nobody(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/v1/sessions", params={"request_user": "alice"})).status_code == 401

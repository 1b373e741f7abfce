"""addSession, sentence by sentence of docs/wire-protocol.md, "Legacy HTTP"."""

import asyncio
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from session_api.settings import Settings
from tlim_protocol.errors import ErrorCode
from tlim_runtime.turns import WAITING

AsUser = Callable[..., httpx.AsyncClient]
Running = Callable[[Settings], AbstractAsyncContextManager[FastAPI]]

PATHS = ["/plugin/tlim/addSession", "/plugins/tlim/addSession"]
PATH = PATHS[0]


def elements(*ids: str) -> list[dict[str, str]]:
    return [{"user_id": one} for one in ids]


def text(*ids: str) -> str:
    return json.dumps(elements(*ids), ensure_ascii=False)


async def add(client: httpx.AsyncClient, *ids: str) -> dict[str, object]:
    answer = await client.post(PATH, data={"session_type": "1", "subscribers": text(*ids)})
    assert answer.status_code == 200
    fields: dict[str, object] = answer.json()
    return fields


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", ["query", "form", "multipart", "json", "json with text"])
async def test_every_form_on_both_paths_gets_the_specified_answer(as_user: AsUser, path: str, form: str) -> None:
    alice = as_user("alice")
    said = {"session_type": "1", "subscribers": text("bob", "carol")}
    answer = {
        "query": lambda: alice.get(path, params=said),
        "form": lambda: alice.post(path, data=said),
        "multipart": lambda: alice.post(path, files={name: (None, value) for name, value in said.items()}),
        "json": lambda: alice.post(path, json={"session_type": 1, "subscribers": elements("bob", "carol")}),
        "json with text": lambda: alice.post(path, json=said),
    }[form]()
    response = await answer
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    fields = response.json()
    assert re.fullmatch(r"[0-9a-f-]{36}", fields.pop("session_id"))
    assert re.fullmatch(r"[0-9]{13}", fields.pop("session_create_time"))
    assert fields == {
        "result": "ok",
        "result_detail": "ok",
        "session_name": "爱丽丝,Bob,Carol",
        "session_type": 1,
        "session_user": "alice",
        "subscribers": elements("alice", "bob", "carol"),
    }


@pytest.mark.usefixtures("people")
async def test_subscribers_as_the_specification_prints_them_are_read(as_user: AsUser) -> None:
    printed = "[\n  {\n   user_id:'alice'\n  },\n  {\n   user_id:'bob'\n  },\n]"
    answer = await as_user("alice").get(PATH, params={"session_type": "1", "subscribers": printed})
    assert answer.json()["subscribers"] == elements("alice", "bob")


@pytest.mark.usefixtures("people")
async def test_duplicates_collapse_and_order_is_kept(as_user: AsUser) -> None:
    fields = await add(as_user("alice"), "carol", "Alice", "bob", "CAROL", "alice")
    assert fields["subscribers"] == elements("carol", "alice", "bob")
    assert fields["session_name"] == "Carol,爱丽丝,Bob"


@pytest.mark.usefixtures("people")
async def test_the_creator_is_added_when_he_is_not_listed(as_user: AsUser) -> None:
    assert (await add(as_user("alice"), "bob"))["subscribers"] == elements("alice", "bob")


@pytest.mark.usefixtures("people")
async def test_unknown_ids_are_dropped_and_named(as_user: AsUser) -> None:
    fields = await add(as_user("alice"), "ghost", "bob", "李雷", "ghost")
    assert fields["subscribers"] == elements("alice", "bob")
    assert fields["unknown_subscribers"] == elements("ghost", "李雷")


@pytest.mark.usefixtures("people")
async def test_no_known_subscriber_left_is_refused(as_user: AsUser) -> None:
    for nobody in (["ghost"], []):
        fields = await add(as_user("alice"), *nobody)
        assert (fields["result"], fields["result_detail"]) == ("fail", ErrorCode.SESSION_USER_UNKNOWN)


@pytest.mark.usefixtures("people")
async def test_a_deactivated_user_is_not_known(as_user: AsUser, admin: httpx.AsyncClient) -> None:
    assert (await admin.delete("/v1/users/bob")).status_code == 204
    fields = await add(as_user("alice"), "bob", "carol")
    assert fields["unknown_subscribers"] == elements("bob")
    assert (await add(as_user("bob"), "carol"))["result_detail"] == ErrorCode.SESSION_USER_UNKNOWN


@pytest.mark.usefixtures("people")
async def test_an_authenticated_creator_nobody_imported_is_known_from_then_on(as_user: AsUser) -> None:
    assert (await add(as_user("Newcomer"), "bob"))["session_name"] == "newcomer,Bob"
    assert (await add(as_user("alice"), "newcomer"))["subscribers"] == elements("alice", "newcomer")


async def test_the_joined_name_is_cut_to_128_characters(as_user: AsUser, admin: httpx.AsyncClient) -> None:
    await admin.put("/v1/users/long", json={"name": "长" * 127})
    await admin.put("/v1/users/bob", json={"name": "Bob"})
    assert (await add(as_user("long"), "bob"))["session_name"] == "长" * 127 + ","


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"subscribers": text("bob")}, ErrorCode.SESSION_TYPE_INVALID),
        ({"session_type": "", "subscribers": text("bob")}, ErrorCode.SESSION_TYPE_INVALID),
        ({"session_type": "-1", "subscribers": text("bob")}, ErrorCode.SESSION_TYPE_INVALID),
        ({"session_type": "x", "subscribers": text("bob")}, ErrorCode.SESSION_TYPE_INVALID),
        ({"session_type": str(2**63), "subscribers": text("bob")}, ErrorCode.SESSION_TYPE_INVALID),
        ({"session_type": "1", "subscribers": "[{"}, ErrorCode.JSON_INVALID),
        ({"session_type": "1", "subscribers": "{}"}, ErrorCode.NOT_AN_ARRAY),
        ({"session_type": "1", "subscribers": "['bob']"}, ErrorCode.NOT_AN_ARRAY),
        ({"session_type": "1", "subscribers": '[{"user_id":" "}]'}, ErrorCode.USER_UNKNOWN),
        ({"session_type": "1", "subscribers": text("x" * 65)}, ErrorCode.FIELD_INVALID),
        ({"session_type": "1"}, ErrorCode.FIELD_INVALID),
    ],
)
async def test_every_refusal_is_http_200_with_code_and_sentence(
    as_user: AsUser, said: dict[str, str], code: ErrorCode
) -> None:
    alice = as_user("alice")
    for answer in (await alice.get(PATH, params=said), await alice.post(PATH, data=said)):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        fields = answer.json()
        assert (fields["result"], fields["result_detail"]) == ("fail", code)
        assert len(fields["detail"]) > 10
    assert (await alice.get("/v1/sessions")).json()["items"] == []


async def test_the_largest_session_type_survives(as_user: AsUser) -> None:
    said = {"session_type": str(2**63 - 1), "subscribers": text("alice")}
    assert (await as_user("alice").get(PATH, params=said)).json()["session_type"] == 2**63 - 1


async def test_a_json_body_that_does_not_parse_is_refused(as_user: AsUser) -> None:
    answer = await as_user("alice").post(PATH, content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["result_detail"]) == (200, ErrorCode.JSON_INVALID)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=b", b"--b\r\n[]--b--\r\n"),
        ("multipart/form-data", b"x"),
        ("application/x-www-form-urlencoded", b"session_type=%ff"),
    ],
)
async def test_a_form_that_does_not_parse_is_refused(as_user: AsUser, content_type: str, body: bytes) -> None:
    answer = await as_user("alice").post(PATH, content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["result_detail"]) == (200, ErrorCode.FIELD_INVALID)


async def test_a_file_where_text_belongs_is_refused(as_user: AsUser) -> None:
    answer = await as_user("alice").post(PATH, data={"session_type": "1"}, files={"subscribers": ("a.txt", b"[]")})
    assert (answer.status_code, answer.json()["result_detail"]) == (200, ErrorCode.NOT_AN_ARRAY)


async def test_a_multipart_body_of_many_megabytes_is_413(as_user: AsUser) -> None:
    answer = await as_user("alice").post(PATH, files={"subscribers": (None, "x" * 5_000_000)})
    assert answer.status_code == 413


async def test_without_a_token_it_is_401(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get(PATH, params={"session_type": "1", "request_user": "alice"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_token_is_401(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get(PATH, headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 401


async def test_a_body_of_many_megabytes_is_413(as_user: AsUser) -> None:
    answer = await as_user("alice").post(PATH, data={"session_type": "1", "subscribers": "x" * 5_000_000})
    assert answer.status_code == 413


@pytest.mark.usefixtures("people")
async def test_unknown_ids_do_not_count_against_the_size_limit(as_user: AsUser, settings: Settings) -> None:
    ghosts = [f"ghost{one}" for one in range(settings.session_max_subscribers)]
    assert (await add(as_user("alice"), *ghosts, "bob"))["subscribers"] == elements("alice", "bob")


@pytest.mark.usefixtures("people")
async def test_one_persons_requests_take_turns_and_hold_nobody_else_up(
    running: Running, client_of: Callable[..., httpx.AsyncClient], settings: Settings
) -> None:
    blocker = await asyncpg.connect(settings.database_url.get_secret_value().replace("+asyncpg", ""))
    limits = {"database_pool_size": 3, "requests_at_once_per_user": 2}
    async with running(settings.model_copy(update=limits)) as app:
        alice, said = client_of(app, "alice"), {"session_type": "1", "subscribers": text("bob")}
        blocking = blocker.transaction()
        await blocking.start()
        await blocker.execute("SELECT pg_advisory_xact_lock(hashtext('session_changes'))")
        adding = [asyncio.create_task(alice.post(PATH, data=said)) for _ in range(2 + WAITING + 5)]
        refused = [await one for one in itertools.islice(asyncio.as_completed(adding), 5)]
        assert [one.status_code for one in refused] == [429] * 5
        assert (await client_of(app, "bob").get("/v1/sessions")).status_code == 200
        await blocking.rollback()
        assert Counter([(await one).status_code for one in adding]) == {200: 2 + WAITING, 429: 5}
    await blocker.close()

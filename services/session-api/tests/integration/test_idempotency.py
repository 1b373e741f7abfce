"""`Idempotency-Key`: a request to create a session that comes again is answered again, and makes no second session."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from session_api.idempotency import KEPT_MS
from sqlalchemy import text
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import SessionEvent

AsUser = Callable[..., httpx.AsyncClient]
Published = Callable[[], Awaitable[list[SessionEvent]]]

pytestmark = pytest.mark.usefixtures("people")

PATH = "/v1/sessions"
LEGACY = "/plugin/tlim/addSession"
KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
LUNCH: dict[str, Any] = {"session_type": 1, "subscribers": ["bob", "ghost"]}
SAID = {"session_type": "1", "subscribers": json.dumps([{"user_id": "bob"}, {"user_id": "ghost"}])}


def assert_refused(answer: httpx.Response) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, ErrorCode.FIELD_INVALID)
    assert problem["field"] == "Idempotency-Key"


async def age(app: FastAPI, by_ms: int) -> None:
    async with app.state.database.session() as session:
        await session.execute(text("UPDATE idempotency_keys SET at = at - :by"), {"by": by_ms})


async def test_a_repeated_request_gets_the_first_answer_whatever_has_happened_since(
    as_user: AsUser, published: Published
) -> None:
    alice = as_user("alice")
    first = await alice.post(PATH, json=LUNCH, headers=KEY)
    edit = {"session_name": "dinner", "add": ["carol"], "remove": ["bob"]}
    assert (await alice.patch(first.headers["location"], json=edit)).status_code == 200
    again = await alice.post(PATH, json=LUNCH | {"subscribers": ["BOB", "ghost", "bob"]}, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert [again.headers[one] for one in ("location", "etag")] == [first.headers[one] for one in ("location", "etag")]
    assert again.json()["unknown_subscribers"] == ["ghost"]
    assert [one.version for one in await published()] == [1, 2]


@pytest.mark.parametrize(
    "form",
    [
        {"method": "GET", "params": SAID},
        {"method": "POST", "data": SAID},
        {"method": "POST", "json": {"session_type": 1, "subscribers": [{"user_id": "bob"}, {"user_id": "ghost"}]}},
    ],
)
async def test_every_form_of_add_session_is_answered_again(
    as_user: AsUser, published: Published, form: dict[str, Any]
) -> None:
    alice = as_user("alice")
    first, again = [await alice.request(url=LEGACY, headers=KEY, **form) for _ in range(2)]
    assert first.json()["result"] == "ok"
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await alice.post(PATH, json=LUNCH, headers=KEY)).json()["session_id"] == first.json()["session_id"]
    assert len(await published()) == 1


async def test_a_key_that_came_with_another_request_is_refused(as_user: AsUser, published: Published) -> None:
    alice = as_user("alice")
    assert (await alice.post(PATH, json=LUNCH, headers=KEY)).status_code == 201
    for other in ({"session_type": 2}, {"subscribers": ["carol"]}, {"session_name": "lunch"}):
        assert_refused(await alice.post(PATH, json=LUNCH | other, headers=KEY))
    legacy = await alice.post(LEGACY, data=SAID | {"session_type": "2"}, headers=KEY)
    assert (legacy.status_code, legacy.json()["result"]) == (200, "fail")
    assert legacy.json()["result_detail"] == ErrorCode.FIELD_INVALID
    assert len(await published()) == 1


async def test_of_requests_at_once_one_makes_the_session_and_all_get_its_answer(
    as_user: AsUser, published: Published
) -> None:
    alice = as_user("alice")
    answers = await asyncio.gather(*(alice.post(PATH, json=LUNCH, headers=KEY) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [201] * 5
    assert all(answer.json() == answers[0].json() for answer in answers)
    assert len(await published()) == 1


async def test_the_same_key_of_another_person_is_another_key(as_user: AsUser) -> None:
    alices, carols = [await as_user(one).post(PATH, json=LUNCH, headers=KEY) for one in ("alice", "carol")]
    assert [alices.status_code, carols.status_code] == [201, 201]
    assert alices.json()["session_id"] != carols.json()["session_id"]


@pytest.mark.parametrize("key", [b"", b"x" * 65, b"two words", "schlüssel".encode(), b"a\tb"])
async def test_a_key_that_is_none_is_refused(as_user: AsUser, key: bytes) -> None:
    alice, headers = as_user("alice"), {b"Idempotency-Key": key}
    assert_refused(await alice.post(PATH, json=LUNCH, headers=headers))
    assert (await alice.post(LEGACY, data=SAID, headers=headers)).json()["result"] == "fail"


async def test_a_refused_request_does_not_use_its_key_up(as_user: AsUser) -> None:
    alice = as_user("alice")
    assert (await alice.post(PATH, json=LUNCH | {"subscribers": ["ghost"]}, headers=KEY)).status_code == 422
    assert (await alice.post(PATH, json=LUNCH, headers=KEY)).status_code == 201


async def test_a_key_is_kept_for_a_day_and_goes_when_another_one_comes(app: FastAPI, as_user: AsUser) -> None:
    alice = as_user("alice")
    first = await alice.post(PATH, json=LUNCH, headers=KEY)
    await age(app, KEPT_MS - 60_000)
    assert (await alice.post(PATH, json=LUNCH, headers=KEY)).json() == first.json()
    await age(app, 61_000)
    second = await alice.post(PATH, json=LUNCH, headers=KEY)
    assert second.json()["session_id"] != first.json()["session_id"]
    await age(app, KEPT_MS + 1_000)
    await as_user("carol").post(PATH, json=LUNCH, headers=KEY)
    async with app.state.database.session() as session:
        assert list(await session.scalars(text("SELECT user_id FROM idempotency_keys"))) == ["carol"]

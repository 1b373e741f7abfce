"""Sessions over the modern API: the same rules with real statuses, problem documents, versions and pages."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from tlim_protocol.errors import ErrorCode

AsUser = Callable[..., httpx.AsyncClient]

SMALL = 5


@pytest.fixture
def overrides() -> dict[str, Any]:
    return {"session_max_subscribers": SMALL}


def assert_problem(answer: httpx.Response, status: int, code: ErrorCode) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["detail"]


@pytest.mark.usefixtures("people")
async def test_create_answers_201_with_place_version_and_people(as_user: AsUser) -> None:
    body = {"session_type": 2, "subscribers": ["bob", "ghost"], "session_name": "午饭"}
    answer = await as_user("alice").post("/v1/sessions", json=body)
    assert answer.status_code == 201
    session = answer.json()
    assert answer.headers["location"] == f"/v1/sessions/{session['session_id']}"
    assert answer.headers["etag"] == '"1"'
    assert session == {
        "session_id": session["session_id"],
        "session_name": "午饭",
        "session_type": 2,
        "session_user": "alice",
        "version": 1,
        "created_at": session["created_at"],
        "modified_at": None,
        "subscribers": ["alice", "bob"],
        "unknown_subscribers": ["ghost"],
    }


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"session_type": -1, "subscribers": ["bob"]}, 422, ErrorCode.FIELD_INVALID),
        ({"session_type": True, "subscribers": ["bob"]}, 422, ErrorCode.FIELD_INVALID),
        ({"session_type": 2**63, "subscribers": ["bob"]}, 422, ErrorCode.SESSION_TYPE_INVALID),
        ({"session_type": 1}, 422, ErrorCode.FIELD_INVALID),
        ({"session_type": 1, "subscribers": ["ghost"]}, 422, ErrorCode.SESSION_USER_UNKNOWN),
        ({"session_type": 1, "subscribers": [""]}, 404, ErrorCode.USER_UNKNOWN),
        ({"session_type": 1, "subscribers": ["bob"], "session_name": "a\u0000b"}, 422, ErrorCode.FIELD_INVALID),
        ({"session_type": 1, "subscribers": ["bob"], "name": "x"}, 422, ErrorCode.FIELD_INVALID),
    ],
)
async def test_a_refused_create_is_a_problem_document(
    as_user: AsUser, body: dict[str, Any], status: int, code: ErrorCode
) -> None:
    assert_problem(await as_user("alice").post("/v1/sessions", json=body), status, code)


async def test_a_session_larger_than_the_limit_is_refused(as_user: AsUser, admin: httpx.AsyncClient) -> None:
    many = [f"u{one}" for one in range(SMALL)]
    await admin.post("/v1/users", json={"users": [{"user_id": one} for one in many]})
    alice = as_user("alice")
    assert_problem(
        await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": many}), 422, ErrorCode.FIELD_INVALID
    )
    full = await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": many[1:]})
    assert len(full.json()["subscribers"]) == SMALL
    place = full.headers["location"]
    assert_problem(await alice.patch(place, json={"add": many[:1]}), 422, ErrorCode.FIELD_INVALID)
    assert (await alice.patch(place, json={"add": many[:1], "remove": many[1:2]})).status_code == 200


async def test_members_read_a_session_and_strangers_do_not(as_user: AsUser, lunch: str) -> None:
    assert (await as_user("bob").get(f"/v1/sessions/{lunch}")).json()["subscribers"] == ["alice", "bob", "carol"]
    for session_id in (lunch, "no-such-session"):
        answer = await as_user("dave").get(f"/v1/sessions/{session_id}")
        assert_problem(answer, 404, ErrorCode.SESSION_UNKNOWN)


async def test_one_edit_does_it_all_as_one_version(as_user: AsUser, lunch: str) -> None:
    body = {"session_name": "dinner", "add": ["dave", "ghost"], "remove": ["bob"]}
    answer = await as_user("alice").patch(f"/v1/sessions/{lunch}", json=body)
    session = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    assert (session["session_name"], session["subscribers"]) == ("dinner", ["alice", "carol", "dave"])
    assert session["unknown_subscribers"] == ["ghost"]
    assert session["modified_at"] >= session["created_at"]


@pytest.mark.parametrize(
    ("caller", "body", "status", "code"),
    [
        ("alice", {}, 422, ErrorCode.FIELD_INVALID),
        ("alice", {"session_name": ""}, 422, ErrorCode.SESSION_NAME_EMPTY),
        ("alice", {"add": ["ghost"]}, 404, ErrorCode.USER_UNKNOWN),
        ("alice", {"remvoe": ["bob"]}, 422, ErrorCode.FIELD_INVALID),
        ("bob", {"remove": ["carol"]}, 403, ErrorCode.NOT_ALLOWED),
        ("dave", {"session_name": "mine"}, 404, ErrorCode.SESSION_UNKNOWN),
    ],
)
async def test_a_refused_edit_is_a_problem_document(
    *, as_user: AsUser, lunch: str, caller: str, body: dict[str, Any], status: int, code: ErrorCode
) -> None:
    assert_problem(await as_user(caller).patch(f"/v1/sessions/{lunch}", json=body), status, code)


async def test_an_edit_of_another_version_than_the_one_read_is_412(as_user: AsUser, lunch: str) -> None:
    alice, place = as_user("alice"), f"/v1/sessions/{lunch}"
    assert (await alice.patch(place, json={"session_name": "a"}, headers={"If-Match": '"1"'})).status_code == 200
    for send in (
        alice.patch(place, json={"session_name": "b"}, headers={"If-Match": '"1"'}),
        alice.delete(place, headers={"If-Match": '"1"'}),
    ):
        assert_problem(await send, 412, ErrorCode.FIELD_INVALID)
    assert (await alice.patch(place, json={"session_name": "b"}, headers={"If-Match": "*"})).status_code == 200
    assert (await alice.get(place)).json()["version"] == 3


async def test_nonsense_in_if_match_is_refused(as_user: AsUser, lunch: str) -> None:
    headers = {"If-Match": 'W/"1", "2"'}
    answer = await as_user("alice").patch(f"/v1/sessions/{lunch}", json={"session_name": "a"}, headers=headers)
    assert_problem(answer, 422, ErrorCode.FIELD_INVALID)


async def test_delete_is_204_and_then_there_is_nothing(as_user: AsUser, lunch: str) -> None:
    place = f"/v1/sessions/{lunch}"
    assert_problem(await as_user("bob").delete(place), 403, ErrorCode.NOT_ALLOWED)
    assert (await as_user("alice").delete(place)).status_code == 204
    assert_problem(await as_user("alice").delete(place), 404, ErrorCode.SESSION_UNKNOWN)
    assert_problem(await as_user("bob").get(place), 404, ErrorCode.SESSION_UNKNOWN)


@pytest.mark.usefixtures("people")
async def test_pages_show_every_session_of_mine_once_newest_first(as_user: AsUser) -> None:
    bob = as_user("bob")
    mine = [
        (await as_user("alice").post("/v1/sessions", json={"session_type": 1, "subscribers": ["bob"]})).json()
        for _ in range(5)
    ]
    await as_user("alice").post("/v1/sessions", json={"session_type": 1, "subscribers": ["carol"]})
    await bob.patch(f"/v1/sessions/{mine.pop(0)['session_id']}", json={"remove": ["bob"]})
    seen: list[tuple[int, str]] = []
    cursor: str | None = None
    pages = 0
    while cursor is not None or pages == 0:
        page = (await bob.get("/v1/sessions", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [(one["created_at"], one["session_id"]) for one in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert pages == 2
    assert seen == sorted(((one["created_at"], one["session_id"]) for one in mine), reverse=True)


@pytest.mark.parametrize("params", [{"cursor": "!"}, {"cursor": "YWJj"}, {"limit": "0"}, {"limit": "201"}])
async def test_a_cursor_or_limit_that_makes_no_sense_is_refused(as_user: AsUser, params: dict[str, str]) -> None:
    answer = await as_user("alice").get("/v1/sessions", params=params)
    assert_problem(answer, 422, ErrorCode.FIELD_INVALID)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("POST", ""), ("GET", "/x"), ("PATCH", "/x"), ("DELETE", "/x")],
)
async def test_without_a_token_it_is_401(stranger: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await stranger.request(method, f"/v1/sessions{path}", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/sessions"), ("PATCH", "/v1/sessions/x"), ("POST", "/v1/users"), ("PUT", "/v1/users/x")],
)
@pytest.mark.parametrize("authorization", [None, "Bearer rubbish"])
async def test_the_body_of_a_stranger_is_not_read(
    stranger: httpx.AsyncClient, method: str, path: str, authorization: str | None
) -> None:
    asked_for: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        asked_for.append(b"{")
        yield b"{"

    # What is sent without leave is thrown away, so that the answer is not lost (tlim_runtime.requests.UnreadBodies).
    headers = {"Content-Type": "application/json", "Expect": "100-continue"}
    if authorization is not None:
        headers["Authorization"] = authorization
    answer = await stranger.request(method, path, content=body(), headers=headers)
    assert_problem(answer, 401, ErrorCode.NOT_ALLOWED)
    assert not asked_for


async def test_a_body_of_many_megabytes_is_413(as_user: AsUser) -> None:
    answer = await as_user("alice").post("/v1/sessions", json={"session_name": "x" * 5_000_000})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")

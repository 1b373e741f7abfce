"""Groups of 10,000 under both doors: created, edited, told and read page by page."""

import json
import threading
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from session_api.dependencies import session_service
from session_api.edits import Edit, NewSession
from session_api.paging import write_cursor
from session_api.service import Caller
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import SessionEvent

AsUser = Callable[..., httpx.AsyncClient]
Published = Callable[[], Awaitable[list[SessionEvent]]]

MANY = [f"{one:04}".rjust(64, "u") for one in range(9_999)]
"""Ids as long as they may be."""


def elements(ids: list[str], **more: str) -> str:
    return json.dumps([{"user_id": one, **more} for one in ids])


@pytest_asyncio.fixture
async def alice(as_user: AsUser, admin: httpx.AsyncClient) -> httpx.AsyncClient:
    users = [{"user_id": one} for one in [*MANY, "alice"]]
    assert (await admin.post("/v1/users", json={"users": users})).status_code == 200
    return as_user("alice")


@pytest.mark.parametrize("form", ["form", "json"])
async def test_the_specifications_door_takes_the_largest_group(
    alice: httpx.AsyncClient, published: Published, form: str
) -> None:
    async def call(operation: str, **fields: str) -> dict[str, object]:
        path = f"/plugin/tlim/{operation}"
        sent = alice.post(path, data=fields) if form == "form" else alice.post(path, json=fields)
        answer: dict[str, object] = (await sent).json()
        assert answer["result"] == "ok", answer
        return answer

    added = await call("addSession", session_type="1", subscribers=elements(MANY))
    assert added["subscribers"] == [{"user_id": one} for one in ["alice", *MANY]]
    place = {"session_id": str(added["session_id"])}
    await call("modifySession", **place, subscribers=elements(MANY, type="del"))
    await call("modifySession", **place, subscribers=elements(MANY[::-1], type="add"))
    told = await published()
    assert [(len(one.added), len(one.removed)) for one in told] == [(10_000, 0), (0, 9_999), (9_999, 0)]
    assert told[-1].subscribers == ["alice", *MANY[::-1]]


class Watched(list[str]):
    """Ids that note in which threads they are read."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(ids)
        self.readers: set[int] = set()

    def __iter__(self) -> Iterator[str]:
        self.readers.add(threading.get_ident())
        return super().__iter__()


async def test_long_lists_do_not_make_others_wait(app: FastAPI, alice: httpx.AsyncClient) -> None:
    del alice  # she is in the directory, as are the others
    caller = Caller("alice")
    for number, elsewhere in ((2, False), (2_000, True)):
        created, removed, added = (Watched(MANY[:number]) for _ in range(3))
        async with app.state.database.session() as transaction:
            sessions = session_service(transaction, app.state.settings, app.state.revocations.require_broker)
            session_id = (await sessions.create(caller, NewSession(1, created))).session.session_id
            await sessions.edit(caller, session_id, Edit(remove=removed))
            await sessions.edit(caller, session_id, Edit(add=added))
        for watched in (created, removed, added):
            assert (threading.get_ident() not in watched.readers) is elsewhere


async def test_one_more_than_the_limit_is_refused_and_changes_nothing(
    alice: httpx.AsyncClient, admin: httpx.AsyncClient, published: Published
) -> None:
    await admin.put("/v1/users/bob", json={})
    created = await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": MANY})
    place = created.headers["location"]
    refused = await alice.patch(place, json={"add": ["bob"]})
    assert (refused.status_code, refused.json()["code"]) == (422, ErrorCode.FIELD_INVALID)
    assert (await alice.patch(place, json={"add": ["bob"], "remove": MANY[:1]})).status_code == 200
    assert len(await published()) == 2


async def test_the_subscribers_are_read_page_by_page_in_the_order_they_came(
    alice: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await admin.put("/v1/users/bob", json={"name": "鲍勃"})
    created = await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": MANY[:399]})
    place = created.headers["location"]
    await alice.patch(place, json={"remove": MANY[:1], "add": ["bob"]})
    await alice.patch(place, json={"add": MANY[:1]})
    seen: list[str] = []
    sizes: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await alice.get(f"{place}/subscribers", params={"limit": 200, **cursor})).json()
        seen += [one["user_id"] for one in page["items"]]
        sizes.append(len(page["items"]))
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ["alice", *MANY[1:399], "bob", MANY[0]] == (await alice.get(place)).json()["subscribers"]
    assert sizes == [200, 200, 1]
    assert page["items"][0]["joined_at"] >= created.json()["created_at"]


async def test_the_subscribers_are_told_to_those_who_are_in_it(as_user: AsUser, lunch: str, people: list[str]) -> None:
    path = f"/v1/sessions/{lunch}/subscribers"
    page = (await as_user("bob").get(path)).json()
    assert [(one["user_id"], one["name"]) for one in page["items"]][:2] == [("alice", "爱丽丝"), ("bob", "Bob")]
    assert people[3] == "dave"
    for user, where in (("dave", path), ("alice", "/v1/sessions/unknown/subscribers")):
        answer = await as_user(user).get(where)
        assert (answer.status_code, answer.json()["code"]) == (404, ErrorCode.SESSION_UNKNOWN)
    await as_user("alice").delete(f"/v1/sessions/{lunch}")
    assert (await as_user("alice").get(path)).status_code == 404


@pytest.mark.parametrize("cursor", ["x", write_cursor("1"), write_cursor("1:"), write_cursor("1:99999999999")])
async def test_a_cursor_from_elsewhere_is_refused(as_user: AsUser, lunch: str, cursor: str) -> None:
    answer = await as_user("alice").get(f"/v1/sessions/{lunch}/subscribers", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, ErrorCode.FIELD_INVALID)

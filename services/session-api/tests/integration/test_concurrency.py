"""Many edits of one session at once: nothing lost, no half edit, versions without gaps, one event for each."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from tlim_protocol.events import SessionEvent
from tlim_runtime.turns import Turns

AsUser = Callable[..., httpx.AsyncClient]
Published = Callable[[], Awaitable[list[SessionEvent]]]

EDITS = 30


@pytest.fixture
def overrides() -> dict[str, Any]:
    return {"requests_at_once_per_user": EDITS}


async def test_concurrent_edits_lose_nothing_and_never_mix(
    as_user: AsUser, admin: httpx.AsyncClient, published: Published
) -> None:
    leaving, coming = [[f"{kind}{one:02}" for one in range(EDITS)] for kind in ("leaving", "coming")]
    await admin.post("/v1/users", json={"users": [{"user_id": one} for one in leaving + coming]})
    alice = as_user("alice")
    created = await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": leaving})
    place = created.headers["location"]

    connections = asyncio.Semaphore(8)  # fewer than the pool has: nobody waits for a connection until it is 503

    async def edit(one: int) -> httpx.Response:
        change = {"session_name": f"name{one}", "add": [coming[one]], "remove": [leaving[one]]}
        async with connections:
            return await alice.patch(place, json=change)

    answers = await asyncio.gather(*(edit(one) for one in range(EDITS)))

    assert [answer.status_code for answer in answers] == [200] * EDITS
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, EDITS + 2))
    final = (await alice.get(place)).json()
    assert (final["version"], set(final["subscribers"])) == (EDITS + 1, {"alice", *coming})
    told = await published()
    assert [one.version for one in told] == list(range(1, EDITS + 2))
    inside = told[0].subscribers
    for one in told[1:]:
        number = int(one.session_name.removeprefix("name"))
        assert (one.added, one.removed) == ([coming[number]], [leaving[number]])
        inside = [user for user in inside if user not in one.removed] + one.added
        assert one.subscribers == inside
    assert final["subscribers"] == inside


async def test_of_concurrent_edits_of_one_version_exactly_one_goes_through(as_user: AsUser, lunch: str) -> None:
    alice = as_user("alice")
    answers = await asyncio.gather(
        *(
            alice.patch(f"/v1/sessions/{lunch}", json={"session_name": f"name{one}"}, headers={"If-Match": '"1"'})
            for one in range(10)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9


async def test_deleting_while_others_edit_leaves_a_clean_end(as_user: AsUser, lunch: str, published: Published) -> None:
    alice, bob, place = as_user("alice"), as_user("bob"), f"/v1/sessions/{lunch}"
    answers = await asyncio.gather(
        *(bob.patch(place, json={"session_name": f"before{one}"}) for one in range(5)),
        alice.delete(place),
        *(bob.patch(place, json={"session_name": f"after{one}"}) for one in range(5)),
    )
    assert {answer.status_code for answer in answers} <= {200, 204, 404}
    told = await published()
    assert [one.version for one in told] == list(range(1, len(told) + 1))
    assert [one.deleted for one in told] == [False] * (len(told) - 1) + [True]


async def test_the_same_people_imported_twice_at_once_do_not_deadlock(admin: httpx.AsyncClient) -> None:
    users = [{"user_id": f"u{one}"} for one in range(300)]
    answers = await asyncio.gather(
        *(admin.post("/v1/users", json={"users": rows}) for rows in (users, users[::-1], users, users[::-1]))
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sum(answer.json()["created"] for answer in answers) == 300


async def test_ten_thousand_subscribers_take_as_many_statements_as_two(
    app: FastAPI, as_user: AsUser, admin: httpx.AsyncClient, published: Published
) -> None:
    statements: list[str] = []
    engine = app.state.database.engine.sync_engine

    @event.listens_for(engine, "before_cursor_execute")
    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    async def writes(send: Awaitable[httpx.Response]) -> int:
        statements.clear()
        assert (await send).is_success
        return sum("subscribers" in statement or "users" in statement for statement in statements)

    many = [f"u{one:04}" for one in range(9_999)]
    await admin.post("/v1/users", json={"users": [{"user_id": one} for one in [*many, "alice"]]})
    alice = as_user("alice")
    two = await writes(alice.post("/v1/sessions", json={"session_type": 1, "subscribers": many[:1]}))
    place = f"/v1/sessions/{(await published())[-1].session_id}"
    assert await writes(alice.post("/v1/sessions", json={"session_type": 1, "subscribers": many})) == two
    one_more = await writes(alice.patch(place, json={"add": many[1:2]}))
    assert await writes(alice.patch(place, json={"add": many})) == one_more
    assert (await published())[-1].subscribers == ["alice", *many]
    removed = await writes(alice.patch(place, json={"remove": many}))
    assert removed == one_more
    assert (await published())[-1].subscribers == ["alice"]


@pytest.mark.parametrize("door", ["/v1/sessions", "/plugin/tlim/addSession"])
async def test_while_a_body_of_somebody_comes_slowly_only_a_few_more_of_theirs_are_read(
    app: FastAPI, as_user: AsUser, door: str
) -> None:
    app.state.bodies = Turns(1, waiting=0)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        begun.set()
        await go_on.wait()
        yield b"}"

    is_json = {"Content-Type": "application/json"}
    slowly = asyncio.create_task(as_user("alice").post(door, content=slow(), headers=is_json))
    await begun.wait()
    assert (await as_user("alice").post(door, json={})).status_code == 429
    assert (await as_user("bob").post(door, json={})).status_code != 429
    go_on.set()
    assert (await slowly).status_code != 429

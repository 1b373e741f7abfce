"""The log of changes: every change of every session once, in the order of the commits, asked by message-store."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from session_api.changes_repository import ChangeRepository
from session_api.changes_service import MAX_CHANGES_BYTES
from session_api.repository import SessionRepository
from session_api.service import event_of
from tlim_protocol.events import SessionChanges, SessionChangesQuestion, SessionEvent
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker
from tlim_runtime.database import Database

AllPublished = Callable[[], Awaitable[None]]
AsUser = Callable[..., httpx.AsyncClient]
ConnectBroker = Callable[[str], Awaitable[Broker]]
Published = Callable[[], Awaitable[list[SessionEvent]]]

_WAITS = sa.text(
    """
    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
    """
)


async def page(asker: Broker, after: int, limit: int = 1_000) -> SessionChanges:
    question = SessionChangesQuestion(after=after, limit=limit)
    return SessionChanges.from_bytes(await asker.request(Rpc.SESSION_CHANGES, question.to_bytes(), timeout_s=30))


async def follow(asker: Broker, limit: int) -> list[SessionEvent]:
    """Return the whole log, read page by page."""
    events: list[SessionEvent] = []
    while True:
        told = await page(asker, events[-1].change if events else 0, limit)
        events += told.events
        if not told.more:
            return events


async def somebody_waits_for_the_log(database: Database) -> None:
    async with asyncio.timeout(60):
        while True:
            async with database.session() as session:
                if await session.scalar(_WAITS):
                    return


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_the_log_tells_each_change_as_it_was_told_then(
    as_user: AsUser, lunch: str, published: Published, connect_broker: ConnectBroker, limit: int
) -> None:
    alice, place = as_user("alice"), f"/v1/sessions/{lunch}"
    await alice.patch(place, json={"session_name": "dinner", "add": ["dave"], "remove": ["bob"]})
    await alice.post("/v1/sessions", json={"session_type": 7, "subscribers": ["carol"]})
    await alice.patch(place, json={"add": ["bob"], "remove": ["carol"]})
    await alice.delete(place)
    told = await published()
    assert [one.change for one in told] == [1, 2, 3, 4, 5]
    assert await follow(await connect_broker("message-store"), limit) == told


async def test_after_the_newest_change_there_is_nothing(broker: Broker, lunch: str) -> None:
    del lunch  # change 1
    assert await page(broker, 1) == SessionChanges(events=[], more=False)


async def test_a_change_that_commits_late_is_not_overtaken(
    app: FastAPI, as_user: AsUser, lunch: str, people: list[str], broker: Broker
) -> None:
    created = await as_user("dave").post("/v1/sessions", json={"session_type": 1, "subscribers": people})
    async with app.state.database.session() as late:
        sessions = SessionRepository(late)
        session = await sessions.lock(lunch)
        assert session is not None
        session.version += 1
        event = event_of(session, await sessions.subscribers(session), (), ())
        await ChangeRepository(late).tell(event)
        other = asyncio.create_task(
            as_user("dave").patch(created.headers["location"], json={"session_name": "overtaking"})
        )
        await somebody_waits_for_the_log(app.state.database)
        assert (await page(broker, 2)).events == []
    assert (await other).status_code == 200
    rest = (await page(broker, 2)).events
    assert [(one.change, one.session_name) for one in rest] == [(3, event.session_name), (4, "overtaking")]


async def test_a_change_that_is_rolled_back_leaves_no_gap(
    app: FastAPI, as_user: AsUser, lunch: str, broker: Broker
) -> None:
    async with app.state.database.session() as failing:
        session = await SessionRepository(failing).lock(lunch)
        assert session is not None
        session.version += 1
        await ChangeRepository(failing).tell(event_of(session, ["alice"], (), ()))
        await failing.rollback()
    await as_user("alice").patch(f"/v1/sessions/{lunch}", json={"session_name": "dinner"})
    assert [one.change for one in (await page(broker, 0)).events] == [1, 2]


async def test_who_follows_the_log_during_many_concurrent_edits_sees_all_of_them(
    as_user: AsUser, people: list[str], connect_broker: ConnectBroker, published: Published
) -> None:
    alice, reader = as_user("alice"), await connect_broker("message-store")
    places = [
        (await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": people})).headers["location"]
        for _ in range(5)
    ]
    edits = [alice.patch(places[one % 5], json={"session_name": f"name{one}"}) for one in range(20)]
    writing = asyncio.gather(*edits)
    seen: list[SessionEvent] = []
    async with asyncio.timeout(60):
        while len(seen) < 25:
            seen += (await page(reader, seen[-1].change if seen else 0, 7)).events
    assert {answer.status_code for answer in await writing} == {200}
    assert [one.change for one in seen] == list(range(1, 26))
    assert await published() == seen


async def test_pages_of_the_largest_groups_stay_below_what_the_broker_takes(
    *,
    as_user: AsUser,
    admin: httpx.AsyncClient,
    connect_broker: ConnectBroker,
    published: Published,
    all_published: AllPublished,
) -> None:
    many = [f"{one:04}".rjust(64, "u") for one in range(9_999)]
    assert (await admin.post("/v1/users", json={"users": [{"user_id": one} for one in many]})).status_code == 200
    alice = as_user("alice")
    created = await alice.post("/v1/sessions", json={"session_type": 1, "subscribers": many})
    for name in ("one", "two", "three", "four"):
        await alice.patch(created.headers["location"], json={"session_name": name})
    await all_published()
    asker = await connect_broker("message-store")
    first = await page(asker, 0)
    assert first.more
    assert len(first.to_bytes()) < MAX_CHANGES_BYTES + len(SessionChanges(events=[], more=True).to_bytes())
    assert await follow(asker, 1_000) == await published()

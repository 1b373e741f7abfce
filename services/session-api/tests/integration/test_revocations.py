"""What takes rights away is in effect when it is answered, or it is refused and everything is as before."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from pydantic import SecretStr
from session_api import revocations
from session_api.dependencies import session_service
from session_api.settings import Settings
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_devstack.restartable import RestartableNats
from tlim_devstack.servers import NatsServer
from tlim_devstack.severable import Severable
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import SessionChanges, SessionChangesQuestion, SessionEvent
from tlim_protocol.streams import STREAMS, StreamName
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker

AsUser = Callable[..., httpx.AsyncClient]
Published = Callable[[], Awaitable[list[SessionEvent]]]
AllPublished = Callable[[], Awaitable[None]]
Running = Callable[[Settings], AbstractAsyncContextManager[FastAPI]]
Ask = Callable[[AsUser, str], Awaitable[httpx.Response]]

REVOKING: dict[str, Ask] = {
    "removes": lambda as_user, it: as_user("alice").patch(f"/v1/sessions/{it}", json={"remove": ["bob"]}),
    "leaves": lambda as_user, it: as_user("bob").patch(f"/v1/sessions/{it}", json={"remove": ["bob"]}),
    "deletes": lambda as_user, it: as_user("alice").delete(f"/v1/sessions/{it}"),
    "removes and more": lambda as_user, it: as_user("alice").patch(
        f"/v1/sessions/{it}", json={"session_name": "dinner", "add": ["dave"], "remove": ["bob"]}
    ),
    "removes, legacy": lambda as_user, it: as_user("alice").post(
        "/plugin/tlim/modifySession", json={"session_id": it, "subscribers": [{"user_id": "bob", "type": "del"}]}
    ),
    "deletes, legacy": lambda as_user, it: as_user("alice").get(
        "/plugin/tlim/deleteSession", params={"session_id": it}
    ),
}
WAITING_FOR_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
WAYS = pytest.mark.parametrize("way", REVOKING)


@pytest_asyncio.fixture
async def way_to_nats(clean_jetstream: NatsServer) -> AsyncIterator[Severable]:
    async with Severable(clean_jetstream.url) as way:
        yield way


@pytest.fixture
def overrides(way_to_nats: Severable) -> dict[str, Any]:
    return {"nats_url": way_to_nats.url}


async def people_of(as_user: AsUser, session_id: str) -> list[str]:
    answer = await as_user("alice").get(f"/v1/sessions/{session_id}")
    return list(answer.json()["subscribers"])


def is_refused(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and answer.json()["code"] == ErrorCode.UNAVAILABLE


@WAYS
async def test_cut_off_from_nats_nothing_is_taken_away_and_afterwards_the_same_request_succeeds(
    *,
    app: FastAPI,
    as_user: AsUser,
    lunch: str,
    way_to_nats: Severable,
    published: Published,
    all_published: AllPublished,
    way: str,
) -> None:
    before = (await as_user("alice").get(f"/v1/sessions/{lunch}")).json()
    await way_to_nats.cut()
    assert is_refused(await REVOKING[way](as_user, lunch))
    assert is_refused(await REVOKING[way](as_user, lunch))
    assert (await as_user("alice").get(f"/v1/sessions/{lunch}")).json() == before
    await way_to_nats.mend()
    await all_published()
    assert len(await published()) == 1
    await _until_reachable(app)
    assert (await REVOKING[way](as_user, lunch)).is_success
    told = (await published())[-1]
    assert told.deleted or "bob" not in told.subscribers


async def test_cut_off_from_nats_people_are_added_and_sessions_renamed_all_the_same(
    *, as_user: AsUser, lunch: str, way_to_nats: Severable, published: Published, all_published: AllPublished
) -> None:
    await way_to_nats.cut()
    edit = {"session_name": "dinner", "add": ["dave"], "remove": ["nobody-here"]}
    assert (await as_user("alice").patch(f"/v1/sessions/{lunch}", json=edit)).status_code == 200
    await way_to_nats.mend()
    await all_published()
    assert (await published())[-1].subscribers == ["alice", "bob", "carol", "dave"]


@WAYS
async def test_what_jetstream_refuses_after_the_commit_is_taken_back(
    *,
    as_user: AsUser,
    lunch: str,
    broker: Broker,
    published: Published,
    all_published: AllPublished,
    way: str,
) -> None:
    before = (await as_user("alice").get(f"/v1/sessions/{lunch}")).json()
    before_people = (await as_user("alice").get(f"/v1/sessions/{lunch}/subscribers")).json()
    await all_published()
    await broker.api(f"STREAM.DELETE.{StreamName.IN}")
    assert is_refused(await REVOKING[way](as_user, lunch))
    now = (await as_user("alice").get(f"/v1/sessions/{lunch}")).json()
    assert {**now, "version": 1, "modified_at": None} == before
    assert (await as_user("alice").get(f"/v1/sessions/{lunch}/subscribers")).json() == before_people
    await _create_stream(broker)
    await all_published()
    (told,) = await published()
    assert (told.version, told.subscribers, told.deleted) == (3, ["alice", "bob", "carol"], False)
    assert (await REVOKING[way](as_user, lunch)).is_success
    last = (await published())[-1]
    assert last.deleted or "bob" not in last.subscribers


async def test_a_change_is_taken_back_while_requests_hold_every_connection(
    *,
    people: list[str],
    running: Running,
    client_of: Callable[..., httpx.AsyncClient],
    settings: Settings,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "PUBLISHED_TIMEOUT_S", 0.1)
    blocker = await asyncpg.connect(settings.database_url.get_secret_value().replace("+asyncpg", ""))
    new = {"session_type": 1, "subscribers": people}
    async with running(settings.model_copy(update={"database_pool_size": 2})) as app:
        alice = client_of(app, "alice")
        place = (await alice.post("/v1/sessions", json=new)).headers["location"]
        await _until_reachable(app)
        assert await app.state.outbox_relay.flush(timeout_s=30)
        await broker.api(f"STREAM.DELETE.{StreamName.IN}")
        blocking = blocker.transaction()
        await blocking.start()
        await blocker.execute("SELECT pg_advisory_xact_lock(hashtext('outbox relay'))")
        removal = asyncio.create_task(alice.patch(place, json={"remove": ["bob"]}))
        await _until(blocker, "SELECT count(*) FROM sessions WHERE version = 2", 1)
        await blocker.execute("SELECT pg_advisory_xact_lock(hashtext('session_changes'))")
        others = [asyncio.create_task(client_of(app, one).post("/v1/sessions", json=new)) for one in ("bob", "carol")]
        # two requests, the relay and the taking back; the relay of the fixture's application may wait as well
        await _until(blocker, WAITING_FOR_LOCKS, 4)
        await blocking.rollback()
        assert is_refused(await removal)
        assert [(await other).status_code for other in others] == [201, 201]
        assert "bob" in (await alice.get(place)).json()["subscribers"]
    await blocker.close()


async def test_a_reader_of_the_log_sees_that_what_was_taken_back_changed_nothing(
    *,
    as_user: AsUser,
    lunch: str,
    broker: Broker,
    connect_broker: Callable[[str], Awaitable[Broker]],
    all_published: AllPublished,
) -> None:
    await all_published()
    await broker.api(f"STREAM.DELETE.{StreamName.IN}")
    assert is_refused(await REVOKING["removes and more"](as_user, lunch))
    asker = await connect_broker("message-store")
    question = SessionChangesQuestion(after=1, limit=10).to_bytes()
    events = SessionChanges.from_bytes(await asker.request(Rpc.SESSION_CHANGES, question, timeout_s=30)).events
    assert [(one.change, one.version, one.session_name) for one in events] == [
        (2, 2, "爱丽丝,Bob,Carol"),
        (3, 3, "爱丽丝,Bob,Carol"),
    ]
    assert [one.subscribers for one in events] == [["alice", "bob", "carol"]] * 2
    assert not any(one.added or one.removed or one.deleted for one in events)


async def test_a_deletion_stands_when_the_change_before_it_is_taken_back(
    *, app: FastAPI, as_user: AsUser, lunch: str, published: Published
) -> None:
    alice = as_user("alice")
    assert (await REVOKING["leaves"](as_user, lunch)).is_success
    assert (await REVOKING["deletes"](as_user, lunch)).is_success
    await _undo(app, lunch, 2)
    assert (await alice.get(f"/v1/sessions/{lunch}")).status_code == 404
    assert [(one.version, one.deleted) for one in await published()][-2:] == [(3, True), (4, True)]
    await _undo(app, lunch, 3)
    assert await people_of(as_user, lunch) == ["alice", "bob", "carol"]
    last = (await published())[-1]
    assert (last.version, last.deleted) == (5, False)


async def test_two_changes_taken_back_tell_no_deletion(
    *,
    as_user: AsUser,
    lunch: str,
    settings: Settings,
    broker: Broker,
    published: Published,
    all_published: AllPublished,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "PUBLISHED_TIMEOUT_S", 0.1)
    await all_published()
    await broker.api(f"STREAM.DELETE.{StreamName.IN}")
    blocker = await asyncpg.connect(settings.database_url.get_secret_value().replace("+asyncpg", ""))
    async with blocker.transaction():
        await blocker.execute("SELECT pg_advisory_xact_lock(hashtext('outbox relay'))")
        refused: list[asyncio.Future[httpx.Response]] = []
        for version, way in enumerate(("leaves", "deletes"), start=2):
            refused.append(asyncio.ensure_future(REVOKING[way](as_user, lunch)))
            await _until(blocker, f"SELECT count(*) FROM sessions WHERE version = {version}", 1)  # noqa: S608 - a number
    await blocker.close()
    assert [is_refused(await answer) for answer in refused] == [True, True]
    await _create_stream(broker)
    await all_published()
    (told,) = await published()
    assert (told.version, told.subscribers, told.deleted) == (5, ["alice", "bob", "carol"], False)


async def test_tries_while_cut_off_from_nats_use_up_no_limit(
    running: Running,
    client_of: Callable[..., httpx.AsyncClient],
    settings: Settings,
    lunch: str,
    way_to_nats: Severable,
) -> None:
    async with running(settings.model_copy(update={"session_changes_per_user": "4/hour"})) as app:
        alice, place = client_of(app, "alice"), f"/v1/sessions/{lunch}"
        await way_to_nats.cut()
        for _ in range(3):
            assert is_refused(await alice.patch(place, json={"remove": ["bob"]}))
            assert is_refused(await alice.delete(place))
        await way_to_nats.mend()
        await _until_reachable(app)
        assert (await alice.patch(place, json={"remove": ["bob"]})).status_code == 200


async def test_what_is_taken_back_is_not_charged(
    running: Running, client_of: Callable[..., httpx.AsyncClient], settings: Settings, lunch: str, broker: Broker
) -> None:
    async with running(settings.model_copy(update={"session_changes_per_user": "3/hour"})) as app:
        alice, place = client_of(app, "alice"), f"/v1/sessions/{lunch}"
        await broker.api(f"STREAM.DELETE.{StreamName.IN}")
        assert is_refused(await alice.patch(place, json={"remove": ["bob"]}))
        await _create_stream(broker)
        await _until_reachable(app)
        assert (await alice.patch(place, json={"remove": ["bob"]})).status_code == 200


async def test_a_broker_that_says_nothing_is_as_good_as_none(
    *,
    people: list[str],
    as_user: AsUser,
    lunch: str,
    running: Running,
    client_of: Callable[..., httpx.AsyncClient],
    settings: Settings,
    restartable_nats: RestartableNats,
) -> None:
    del people
    password = SecretStr(restartable_nats.passwords[settings.nats_user])
    elsewhere = settings.model_copy(update={"nats_url": restartable_nats.url, "nats_password": password})
    async with running(elsewhere) as app:
        restartable_nats.freeze()
        answer = await client_of(app, "alice").patch(f"/v1/sessions/{lunch}", json={"remove": ["bob"]})
        restartable_nats.thaw()
    assert is_refused(answer)
    assert await people_of(as_user, lunch) == ["alice", "bob", "carol"]


async def _create_stream(broker: Broker) -> None:
    spec = next(one for one in STREAMS if one.name == StreamName.IN)
    await broker.api(f"STREAM.CREATE.{spec.name}", name=spec.name, subjects=spec.subjects, storage="file")


async def _undo(app: FastAPI, session_id: str, version: int) -> None:
    async with app.state.own_database.session() as session:
        service = session_service(session, app.state.settings, app.state.revocations.require_broker)
        await service.undo(session_id, version)


async def _until_reachable(app: FastAPI) -> None:
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
        with attempt:
            health = await app.state.health.check()
            assert (health["nats"], health["outbox"]) == ("ok", "ok")


async def _until(connection: "asyncpg.Connection[asyncpg.Record]", question: str, count: int) -> None:
    async for attempt in AsyncRetrying(stop=stop_after_delay(9), wait=wait_fixed(0.05), reraise=True):
        with attempt:
            assert await connection.fetchval(question) >= count

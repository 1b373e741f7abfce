"""HTS events: what they tell, that they leave after the commit, which answers wait for them, and that none is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from session_api.settings import Settings
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_devstack.servers import running_nats
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import SessionEvent
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import STREAMS, StreamName
from tlim_protocol.subjects import session_event_id, subject_in
from tlim_runtime.broker import Broker
from tlim_runtime.outbox import FLUSH_TIMEOUT_S

AsUser = Callable[..., httpx.AsyncClient]
AllPublished = Callable[[], Awaitable[None]]
Published = Callable[[], Awaitable[list[SessionEvent]]]


async def test_each_change_is_told_with_all_subscribers(
    as_user: AsUser, people: list[str], published: Published
) -> None:
    alice = as_user("alice")
    created = await alice.post("/v1/sessions", json={"session_type": 7, "subscribers": people[:3]})
    place = created.headers["location"]
    (added,) = await published()
    assert added.model_dump() == {
        "msg_type": MsgType.SESSION_ADDED,
        "session_id": created.json()["session_id"],
        "session_name": "爱丽丝,Bob,Carol",
        "session_type": 7,
        "session_user": "alice",
        "version": 1,
        "change": 1,
        "actor": "alice",
        "at": created.json()["created_at"],
        "subscribers": ["alice", "bob", "carol"],
        "added": ["alice", "bob", "carol"],
        "removed": [],
        "deleted": False,
    }
    await as_user("bob").patch(place, json={"session_name": "dinner", "add": ["dave"], "remove": ["bob"]})
    _, changed = await published()
    assert (changed.msg_type, changed.version, changed.actor) == (MsgType.SESSION_CHANGED, 2, "bob")
    assert (changed.session_name, changed.subscribers) == ("dinner", ["alice", "carol", "dave"])
    assert (changed.added, changed.removed) == (["dave"], ["bob"])
    await alice.delete(place)
    _, _, deleted = await published()
    assert (deleted.msg_type, deleted.version, deleted.deleted) == (MsgType.SESSION_DELETED, 3, True)
    assert deleted.subscribers == ["alice", "carol", "dave"]


class HeldRelay:
    """A relay that publishes nothing until `go_on` is set. It notes how long its callers would wait."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.waits: list[float] = []

    async def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        self.waits.append(timeout_s)
        if timeout_s:
            await self.go_on.wait()
        return self.go_on.is_set()


@pytest.mark.parametrize(
    ("door", "bob"), [("/v1/sessions", "bob"), ("/plugin/tlim/addSession", {"user_id": "bob"})], ids=["v1", "legacy"]
)
@pytest.mark.usefixtures("people")
async def test_a_new_session_is_answered_while_its_event_waits(
    *, app: FastAPI, as_user: AsUser, published: Published, door: str, bob: object
) -> None:
    held, relay = HeldRelay(), app.state.outbox_relay
    app.state.outbox_relay = held
    answer = await as_user("alice").post(door, json={"session_type": 1, "subscribers": [bob]})
    app.state.outbox_relay = relay
    assert answer.is_success
    assert held.waits == [0]
    assert [one.session_id for one in await published()] == [answer.json()["session_id"]]


@pytest.mark.parametrize("edit", [{"add": ["dave"]}, {"session_name": "dinner"}])
async def test_a_changed_session_is_answered_when_its_event_is_published(
    app: FastAPI, as_user: AsUser, lunch: str, edit: dict[str, Any]
) -> None:
    held, relay, alice, place = HeldRelay(), app.state.outbox_relay, as_user("alice"), f"/v1/sessions/{lunch}"
    app.state.outbox_relay = held
    changing = asyncio.create_task(alice.patch(place, json=edit))
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01), reraise=True):
        with attempt:
            assert held.waits
    assert (await alice.get(place)).json()["version"] == 2
    assert not changing.done()
    held.go_on.set()
    assert (await changing).status_code == 200
    app.state.outbox_relay = relay


async def test_an_event_travels_under_its_subject_with_its_id(
    broker: Broker, lunch: str, all_published: AllPublished
) -> None:
    await all_published()
    subject = subject_in(MsgType.SESSION_ADDED, lunch)
    stored = await broker.api(f"STREAM.MSG.GET.{StreamName.IN}", last_by_subj=subject)
    assert stored["message"]["subject"] == subject
    again = await broker.publish(subject, b"{}", session_event_id(lunch, 1))
    assert again.duplicate


async def test_a_refusal_and_what_changes_nothing_tell_nothing(
    as_user: AsUser, lunch: str, published: Published
) -> None:
    await as_user("bob").patch(f"/v1/sessions/{lunch}", json={"remove": ["carol"]})
    await as_user("bob").patch(f"/v1/sessions/{lunch}", json={"add": ["carol"]})
    assert len(await published()) == 1


async def test_without_jetstream_the_call_succeeds_and_the_event_follows(
    *, as_user: AsUser, lunch: str, broker: Broker, published: Published, all_published: AllPublished
) -> None:
    await all_published()
    await broker.api(f"STREAM.DELETE.{StreamName.IN}")
    answer = await as_user("bob").patch(f"/v1/sessions/{lunch}", json={"session_name": "dinner"})
    assert answer.status_code == 200
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
        with attempt:
            readiness = (await as_user("bob").get("/readyz")).json()
            assert readiness["checks"]["outbox"] != "ok"
    spec = next(one for one in STREAMS if one.name == StreamName.IN)
    await broker.api(f"STREAM.CREATE.{spec.name}", name=spec.name, subjects=spec.subjects, storage="file")
    await all_published()
    assert [(one.version, one.session_name) for one in await published()] == [(2, "dinner")]


async def test_an_event_that_a_process_could_not_publish_is_published_by_the_next(
    *,
    as_user: AsUser,
    lunch: str,
    settings: Settings,
    running: Callable[[Settings], AbstractAsyncContextManager[FastAPI]],
    client_of: Callable[..., httpx.AsyncClient],
    published: Published,
    tmp_path: Path,
) -> None:
    with ExitStack() as alive:
        nats = alive.enter_context(running_nats(tmp_path))
        password = SecretStr(nats.passwords[settings.nats_user])
        lonely = settings.model_copy(update={"nats_url": nats.url, "nats_password": password})
        async with running(lonely) as app:
            alive.close()
            edit = {"session_name": "dinner"}
            assert (await client_of(app, "bob").patch(f"/v1/sessions/{lunch}", json=edit)).status_code == 200
            assert (await client_of(app).get("/readyz")).json()["checks"]["nats"] != "ok"
    # The other process, with a working NATS, has been running all the time: its relay finds the row.
    assert (await as_user("bob").patch(f"/v1/sessions/{lunch}", json={"session_name": "supper"})).status_code == 200
    assert [one.session_name for one in (await published())[1:]] == ["dinner", "supper"]


@pytest.mark.parametrize(
    ("sqlstate", "status"),
    [("23514", 500), ("40001", 503)],  # check_violation: a mistake; serialization_failure: try again
)
async def test_a_commit_that_fails_is_never_answered_with_ok(
    *,
    as_user: AsUser,
    lunch: str,
    published: Published,
    all_published: AllPublished,
    owner_url: Callable[[str, str], str],
    database_url: str,
    sqlstate: str,
    status: int,
) -> None:
    await all_published()
    await _fail_at_commit(owner_url("session_api", database_url), sqlstate)
    alice = as_user("alice")
    answers = [
        await alice.get("/plugin/tlim/modifySession", params={"session_id": lunch, "session_name": "dinner"}),
        await alice.patch(f"/v1/sessions/{lunch}", json={"session_name": "dinner"}),
        await alice.delete(f"/v1/sessions/{lunch}"),
    ]
    assert [answer.status_code for answer in answers] == [status] * 3
    if status == 503:
        assert [answer.json()["code"] for answer in answers] == [ErrorCode.UNAVAILABLE] * 3
    session = (await alice.get(f"/v1/sessions/{lunch}")).json()
    assert (session["session_name"], session["version"]) == ("爱丽丝,Bob,Carol", 1)
    assert len(await published()) == 1


async def _fail_at_commit(url: str, sqlstate: str) -> None:
    owner = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await owner.execute(
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'refused at commit' USING ERRCODE = '{sqlstate}'; END $$;
            CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON sessions
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
            """
        )
    finally:
        await owner.close()

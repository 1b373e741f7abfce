"""The RPC doors, asked by the services that ask in production, with their own permissions."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
from fastapi import FastAPI
from session_api import changes_service, users_service
from session_api.settings import Settings
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_protocol.events import (
    AuditAction,
    AuditNote,
    SessionEvent,
    SessionsAnswer,
    SessionsQuestion,
    UserMeet,
    UsersDeactivated,
    UsersKnown,
)
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker, BrokerUnavailable

AsUser = Callable[..., httpx.AsyncClient]
ClientOf = Callable[..., httpx.AsyncClient]
ConnectBroker = Callable[[str], Awaitable[Broker]]
Running = Callable[[Settings], AbstractAsyncContextManager[FastAPI]]
Published = Callable[[], Awaitable[list[SessionEvent]]]


async def meet(asker: Broker, *, seen: list[str], ask: list[str]) -> list[str]:
    answer = await asker.request(Rpc.USER_MEET, UserMeet(seen=seen, ask=ask).to_bytes(), timeout_s=30)
    return sorted(UsersKnown.from_bytes(answer).known)


async def ask(asker: Broker, *session_ids: str) -> SessionsAnswer:
    question = SessionsQuestion(session_ids=list(session_ids))
    return SessionsAnswer.from_bytes(await asker.request(Rpc.SESSION_GET, question.to_bytes(), timeout_s=30))


async def newest(asker: Broker, session_id: str) -> SessionEvent:
    (event,) = (await ask(asker, session_id)).sessions
    return event


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("service", ["message-store", "xmpp-bridge"])
async def test_who_was_imported_or_seen_once_is_known(connect_broker: ConnectBroker, service: str) -> None:
    asker = await connect_broker(service)
    assert await meet(asker, seen=["newcomer"], ask=["alice", "newcomer", "ghost"]) == ["alice", "newcomer"]
    assert await meet(asker, seen=[], ask=["newcomer", "ghost"]) == ["newcomer"]
    assert await meet(asker, seen=["newcomer", "alice"], ask=[]) == []


async def test_being_seen_neither_activates_nor_renames(
    connect_broker: ConnectBroker, admin: httpx.AsyncClient, people: list[str]
) -> None:
    await admin.delete("/v1/users/bob")
    asker = await connect_broker("message-store")
    assert await meet(asker, seen=["bob", "alice"], ask=people) == ["alice", "carol", "dave"]
    users = {one["user_id"]: one for one in (await admin.get("/v1/users")).json()["items"]}
    assert (users["bob"]["active"], users["alice"]["name"]) == (False, "爱丽丝")


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("service", ["file-api", "message-store", "xmpp-bridge", "session-api"])
async def test_every_service_hears_who_is_deactivated_the_last_one_first(
    connect_broker: ConnectBroker, admin: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    asker = await connect_broker(service)

    async def deactivated() -> list[str]:
        return UsersDeactivated.from_bytes(await asker.request(Rpc.USER_DEACTIVATED, b"", timeout_s=30)).users

    assert await deactivated() == []
    for user in ("alice", "bob", "carol"):
        await admin.delete(f"/v1/users/{user}")
    await admin.put("/v1/users/bob", json={})
    assert await deactivated() == ["carol", "alice"]
    monkeypatch.setattr(users_service, "MAX_DEACTIVATED", 1)
    assert await deactivated() == ["carol"]


async def test_this_service_reads_who_is_deactivated_in_its_own_table_and_asks_nobody(
    running: Running, settings: Settings, client_of: ClientOf, broker: Broker
) -> None:
    asked: list[bytes] = []
    await broker.listen(Rpc.USER_DEACTIVATED, lambda _subject, data: asked.append(data))
    async with running(settings) as app:
        admin = client_of(app, "importer", scope="admin")
        (await admin.post("/v1/users", json={"users": [{"user_id": "alice"}]})).raise_for_status()
        (await admin.delete("/v1/users/alice")).raise_for_status()
    async with running(settings) as app:
        alice = client_of(app, "alice")
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
            with attempt:
                assert (await alice.get("/v1/sessions")).status_code == 401
    await broker.flush()
    assert asked == []


async def test_what_an_administrator_asks_the_bridge_for_is_in_the_log(
    connect_broker: ConnectBroker, admin: httpx.AsyncClient
) -> None:
    bridge = await connect_broker("xmpp-bridge")
    note = AuditNote(
        actor="erp",
        request_id="request-1",
        action=AuditAction.MESSAGE_SEND,
        target="bob",
        detail={"from": "system", "msg_id": "m1"},
    )
    assert await bridge.request(Rpc.AUDIT_NOTE, note.to_bytes(), timeout_s=30) == b""
    (entry,) = (await admin.get("/v1/audit", params={"action": note.action})).json()["items"]
    del entry["at"], entry["id"]
    assert entry == note.model_dump(mode="json")


async def test_a_session_is_told_as_its_newest_event_told_it(
    as_user: AsUser, broker: Broker, lunch: str, published: Published
) -> None:
    alice = as_user("alice")
    assert await newest(broker, lunch) == (await published())[-1]
    await alice.patch(f"/v1/sessions/{lunch}", json={"session_name": "x", "add": ["dave"], "remove": ["bob"]})
    assert await newest(broker, lunch) == (await published())[-1]
    await alice.delete(f"/v1/sessions/{lunch}")
    told = await newest(broker, lunch)
    assert told == (await published())[-1]
    assert (told.msg_type, told.deleted) == (MsgType.SESSION_DELETED, True)


async def test_a_session_that_never_was_is_none(broker: Broker, app: FastAPI) -> None:
    del app  # only has to run
    assert await ask(broker, "no-such-session") == SessionsAnswer(sessions=[], unknown=["no-such-session"])


async def test_many_sessions_are_told_at_once(as_user: AsUser, broker: Broker, lunch: str) -> None:
    made = await as_user("alice").post("/v1/sessions", json={"session_type": 0, "subscribers": ["alice", "bob"]})
    dinner = made.json()["session_id"]
    await as_user("alice").patch(f"/v1/sessions/{dinner}", json={"session_name": "dinner"})
    unknown = [f"none-{number:03}" for number in range(500)]
    answer = await ask(broker, lunch, *unknown, dinner)
    assert {event.session_id: event.version for event in answer.sessions} == {lunch: 1, dinner: 2}
    assert answer.unknown == unknown


async def test_an_answer_that_grows_large_leaves_some_out_for_the_next_question(
    as_user: AsUser, broker: Broker, lunch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await as_user("alice").post("/v1/sessions", json={"session_type": 0, "subscribers": ["alice", "bob"]})
    dinner = made.json()["session_id"]
    monkeypatch.setattr(changes_service, "MAX_CHANGES_BYTES", 10)
    first = await ask(broker, lunch, dinner, "none")
    assert (len(first.sessions), first.unknown) == (1, [])
    second = await ask(broker, *{lunch, dinner}.difference(event.session_id for event in first.sessions))
    assert {first.sessions[0].session_id, second.sessions[0].session_id} == {lunch, dinner}


async def test_a_request_that_makes_no_sense_gets_an_error_at_once(broker: Broker, app: FastAPI) -> None:
    del app
    for subject in (Rpc.USER_MEET, Rpc.AUDIT_NOTE, Rpc.SESSION_GET):
        with pytest.raises(BrokerUnavailable, match="ValidationError"):
            await broker.request(subject, b"nonsense")

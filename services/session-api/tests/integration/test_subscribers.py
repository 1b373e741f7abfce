"""The RPC doors, asked by the services that ask in production, with their own permissions."""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from tlim_protocol.events import (
    AuditAction,
    AuditNote,
    SessionAnswer,
    SessionEvent,
    SessionQuestion,
    UserMeet,
    UsersKnown,
)
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker, BrokerUnavailable

AsUser = Callable[..., httpx.AsyncClient]
ConnectBroker = Callable[[str], Awaitable[Broker]]
Published = Callable[[], Awaitable[list[SessionEvent]]]


async def meet(asker: Broker, *, seen: list[str], ask: list[str]) -> list[str]:
    answer = await asker.request(Rpc.USER_MEET, UserMeet(seen=seen, ask=ask).to_bytes())
    return sorted(UsersKnown.from_bytes(answer).known)


async def newest(asker: Broker, session_id: str) -> SessionEvent | None:
    answer = await asker.request(Rpc.SESSION_GET, SessionQuestion(session_id=session_id).to_bytes())
    return SessionAnswer.from_bytes(answer).session


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
    assert await bridge.request(Rpc.AUDIT_NOTE, note.to_bytes()) == b""
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
    assert told is not None
    assert (told.msg_type, told.deleted) == (MsgType.SESSION_DELETED, True)


async def test_a_session_that_never_was_is_none(broker: Broker, app: FastAPI) -> None:
    del app  # only has to run
    assert await newest(broker, "no-such-session") is None


async def test_a_request_that_makes_no_sense_gets_an_error_at_once(broker: Broker, app: FastAPI) -> None:
    del app
    for subject in (Rpc.USER_MEET, Rpc.AUDIT_NOTE, Rpc.SESSION_GET):
        with pytest.raises(BrokerUnavailable, match="ValidationError"):
            await broker.request(subject, b"nonsense")

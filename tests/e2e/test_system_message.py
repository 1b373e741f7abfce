"""Another system sends as a system user (`POST /v1/messages`): its messages go the usual way, and are stored once."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AuditAction
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People, next_chat, next_delivered

PATH = "/v1/messages"
SYSTEM = "system"


@pytest.fixture
async def other_system(stack: Stack, admin_token: str) -> AsyncIterator[HttpClient]:
    async with HttpClient(stack.addresses.gateway, token=admin_token) as client:
        yield client


def text(**changes: Any) -> dict[str, Any]:
    return {"from": SYSTEM, "msg_type": MsgType.TEXT, "body": [{"text": "your report is ready"}], **changes}


@pytest.mark.proves(f"POST {PATH}")
async def test_a_system_user_writes_to_somebody_and_the_same_again_is_stored_once(
    people: People, other_system: HttpClient
) -> None:
    (bob,) = await people("bob")
    receiver = await bob.device()

    sent = await other_system.call("POST", PATH, json=text(to=bob.user_id))
    again = await other_system.call("POST", PATH, json=text(to=bob.user_id, msg_id=sent["msg_id"]))
    marker = await other_system.call("POST", PATH, json=text(to=bob.user_id))

    assert again == sent
    delivered = [await next_delivered(receiver) for _ in range(2)]
    assert [message.envelope.msg_id for message in delivered] == [sent["msg_id"], marker["msg_id"]]
    assert {message.from_jid for message in delivered} == {f"{SYSTEM}@{receiver.server.domain}"}
    assert (delivered[0].seq, delivered[0].time) == (sent["seq"], int(sent["stored_at"]))
    history = await (await bob.http()).history(SYSTEM, after=0)
    assert [message["msg_id"] for message in history] == [sent["msg_id"], marker["msg_id"]]


async def test_a_msg_id_of_the_callers_own_is_for_one_message(people: People, other_system: HttpClient) -> None:
    bob, carol = await people("bob", "carol")
    invoice = text(to=bob.user_id, msg_id=f"invoice-{bob.user_id}")
    sent = await other_system.call("POST", PATH, json=invoice)
    for other in ({"to": carol.user_id}, {"body": [{"text": "another"}]}):
        with pytest.raises(RefusedError) as refused:
            await other_system.call("POST", PATH, json=invoice | other)
        assert (refused.value.status, refused.value.code) == (422, ErrorCode.FIELD_INVALID)
    assert await other_system.call("POST", PATH, json=invoice) == sent


async def test_who_sent_it_is_in_the_audit_log(people: People, other_system: HttpClient) -> None:
    (bob,) = await people("bob")
    sent = await other_system.call("POST", PATH, json=text(to=bob.user_id))
    log = await other_system.call("GET", "/v1/audit", params={"action": AuditAction.MESSAGE_SEND})
    noted = [entry["detail"] for entry in log["items"] if entry["target"] == bob.user_id]
    assert noted == [{"from": SYSTEM, "msg_id": sent["msg_id"], "msg_type": MsgType.TEXT}]


async def test_who_is_away_gets_it_when_he_comes(people: People, other_system: HttpClient) -> None:
    (bob,) = await people("bob")
    sent = await other_system.call("POST", PATH, json=text(to=bob.user_id))
    receiver = await bob.device()
    delivered = await receiver.expect(Delivered, lambda message: message.delayed)
    assert delivered.envelope.msg_id == sent["msg_id"]


async def test_a_system_user_who_is_in_a_session_writes_to_all_of_it(people: People, other_system: HttpClient) -> None:
    alice, bob = await people("alice", "bob")
    devices = [await alice.device(), await bob.device()]
    await people.admin.put_user(SYSTEM, "System")
    session_id = (await (await alice.http()).add_session([bob.user_id, SYSTEM]))["session_id"]

    message = text(msg_type=MsgType.GROUP_TEXT, session_id=session_id)
    sent = await other_system.call("POST", PATH, json=message)

    for device in devices:
        delivered = await next_chat(device)
        assert (delivered.envelope.msg_id, delivered.seq) == (sent["msg_id"], sent["seq"])
        assert delivered.envelope.session_id == session_id


async def test_only_an_administrator_may_and_only_in_the_name_of_a_system_user(
    people: People, other_system: HttpClient
) -> None:
    alice, bob = await people("alice", "bob")
    for client, sender in ((await alice.http(), SYSTEM), (other_system, alice.user_id)):
        with pytest.raises(RefusedError) as refused:
            await client.call("POST", PATH, json=text(to=bob.user_id) | {"from": sender})
        assert (refused.value.status, refused.value.code) == (403, ErrorCode.NOT_ALLOWED)
    assert await (await bob.http()).history(alice.user_id, after=0) == []


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"to": "nobody-knows-him"}, 404, ErrorCode.USER_UNKNOWN),
        ({"to": None}, 404, ErrorCode.USER_UNKNOWN),
        ({"msg_type": "MTT-999"}, 422, ErrorCode.MSG_TYPE_INVALID),
        ({"body": []}, 422, ErrorCode.BODY_EMPTY),
        ({"body": "hello"}, 422, ErrorCode.NOT_AN_ARRAY),
        ({"msg_id": "x" * 65}, 422, ErrorCode.FIELD_INVALID),
        ({"msg_id": " "}, 422, ErrorCode.FIELD_INVALID),
    ],
)
async def test_it_is_refused_for_the_reasons_a_client_would_hear(
    people: People, other_system: HttpClient, changes: dict[str, Any], status: int, code: ErrorCode
) -> None:
    (bob,) = await people("bob")
    with pytest.raises(RefusedError) as refused:
        await other_system.call("POST", PATH, json=text(to=bob.user_id) | changes)
    assert (refused.value.status, refused.value.code) == (status, code)

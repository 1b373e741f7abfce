"""Each error code with what triggers it: the sender gets the code, and nothing is stored or delivered."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import pytest
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_client.inbox import Refused
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import CLIENT_TYPES, REGISTRY, MsgType

from tests.e2e.clients.people import People, Person, assert_next_is, ids_in_history, next_delivered
from tests.e2e.clients.raw import LEFT_OUT, packed, raw_envelope

NOBODY = "nobody-has-this-id"
TOO_LONG = "x" * 65


class Over(NamedTuple):
    """A refused message: the code, the changes to a valid envelope, and the field that the refusal names."""

    code: ErrorCode
    changes: Mapping[str, Any]
    field: str | None = None


OVER_XMPP = {
    "empty body": Over(ErrorCode.BODY_EMPTY, {"body": []}, "body"),
    "no body in the envelope": Over(ErrorCode.BODY_EMPTY, {"body": LEFT_OUT}, "body"),
    "empty text": Over(ErrorCode.BODY_EMPTY, {"body": [{"text": ""}]}, "text"),
    "second element without text": Over(ErrorCode.BODY_EMPTY, {"body": [{"text": "hi"}, {"txt": "hi"}]}, "text"),
    "no type": Over(ErrorCode.MSG_TYPE_INVALID, {"msg_type": LEFT_OUT}, "msg_type"),
    "unknown type": Over(ErrorCode.MSG_TYPE_INVALID, {"msg_type": "XYZ-9"}, "msg_type"),
    "the server's own type": Over(ErrorCode.MSG_TYPE_INVALID, {"msg_type": MsgType.SESSION_ADDED}, "msg_type"),
    "body is an object": Over(ErrorCode.NOT_AN_ARRAY, {"body": {"text": "hi"}}, "body"),
    "body of strings": Over(ErrorCode.NOT_AN_ARRAY, {"body": ["hi"]}, "body"),
    "not base64": Over(ErrorCode.NOT_AN_ARRAY, {"compress": "1", "body": "!!!"}, "body"),
    "group without session": Over(ErrorCode.SESSION_ID_EMPTY, {"msg_type": MsgType.GROUP_TEXT}, "session_id"),
    "two sessions in one message": Over(
        ErrorCode.SESSION_ID_EMPTY,
        {"msg_type": MsgType.GROUP_TEXT, "body": [{"session_id": one, "text": "hi"} for one in "ab"]},
        "session_id",
    ),
    "no receiver": Over(ErrorCode.USER_UNKNOWN, {"to": LEFT_OUT}, "to"),
    "unknown receiver": Over(ErrorCode.USER_UNKNOWN, {"to": NOBODY}, "to"),
    "another sender": Over(ErrorCode.FROM_NOT_SENDER, {"from_": NOBODY}, "from"),
    "no file": Over(ErrorCode.FILE_UNKNOWN, {"msg_type": MsgType.IMAGE}, "file_id"),
    "receipt of nothing": Over(ErrorCode.MSG_ID_UNKNOWN, {"msg_type": MsgType.READ, "body": [{}]}, "msg_id"),
    "no msg_id": Over(ErrorCode.FIELD_INVALID, {"msg_id": LEFT_OUT}, "msg_id"),
    "number as msg_id": Over(ErrorCode.FIELD_INVALID, {"msg_id": 7}, "msg_id"),
    "too long receiver": Over(ErrorCode.FIELD_INVALID, {"to": TOO_LONG}, "to"),
    "a time in words": Over(ErrorCode.FIELD_INVALID, {"msg_time": "noon"}, "msg_time"),
    "a body that unpacks too far": Over(
        ErrorCode.FIELD_INVALID, {"compress": "1", "body": packed(b" " * (2 << 20))}, "body"
    ),
    "unknown compress": Over(ErrorCode.UNSUPPORTED, {"compress": "2"}, "compress"),
    "unknown encode": Over(ErrorCode.UNSUPPORTED, {"encode": "0"}, "encode"),
    "unknown session": Over(
        ErrorCode.SESSION_UNKNOWN,
        {"msg_type": MsgType.GROUP_TEXT, "body": [{"session_id": NOBODY, "text": "hi"}]},
        "session_id",
    ),
    "unknown encrypt": Over(ErrorCode.UNSUPPORTED, {"encrypt": "1"}, "encrypt"),
    **{
        f"{kind.title} of an unknown message": Over(
            ErrorCode.MSG_ID_UNKNOWN, {"msg_type": msg_type, "body": [dict(kind.example)]}, "msg_id"
        )
        for msg_type, kind in REGISTRY.items()
        if msg_type in CLIENT_TYPES and not kind.is_chat
    },
}
TEXTS = {
    "no <body> at all": (ErrorCode.BODY_EMPTY, None),
    "a blank <body>": (ErrorCode.BODY_EMPTY, " "),
    "no JSON": (ErrorCode.JSON_INVALID, "{not json"),
    "JSON, but no object": (ErrorCode.JSON_INVALID, "[1, 2]"),
}


class Call(NamedTuple):
    """The setting of a failing HTTP request: alice as the caller, a session with her in it, and a session of bob."""

    client: HttpClient
    alice: Person
    hers: str
    his: str


class OverHttp(NamedTuple):
    """A refused HTTP request, its code and its status; the status is 200 where the specification wants that."""

    code: ErrorCode
    status: int
    request: Callable[[Call], Awaitable[object]]


def _add(**fields: Any) -> Callable[[Call], Awaitable[object]]:
    return lambda call: call.client.legacy("addSession", **fields)


def _modify(**fields: Any) -> Callable[[Call], Awaitable[object]]:
    return lambda call: call.client.legacy("modifySession", **{"session_id": call.hers, **fields})


OVER_HTTP = {
    "no session_type": OverHttp(ErrorCode.SESSION_TYPE_INVALID, 200, _add(subscribers=[])),
    "session_type in words": OverHttp(ErrorCode.SESSION_TYPE_INVALID, 200, _add(session_type="one", subscribers=[])),
    "negative session_type": OverHttp(ErrorCode.SESSION_TYPE_INVALID, 200, _add(session_type="-1", subscribers=[])),
    "blank name": OverHttp(ErrorCode.SESSION_NAME_EMPTY, 200, _modify(session_name=" ")),
    "no known subscriber": OverHttp(
        ErrorCode.SESSION_USER_UNKNOWN, 200, _add(session_type="1", subscribers=[{"user_id": NOBODY}])
    ),
    "subscribers do not parse": OverHttp(ErrorCode.JSON_INVALID, 200, _add(session_type="1", subscribers="[{")),
    "subscribers are no array": OverHttp(ErrorCode.NOT_AN_ARRAY, 200, _add(session_type="1", subscribers="{}")),
    "modify without session": OverHttp(ErrorCode.SESSION_ID_EMPTY, 200, _modify(session_id="", session_name="x")),
    "delete without session": OverHttp(
        ErrorCode.SESSION_ID_EMPTY, 200, lambda call: call.client.legacy("deleteSession")
    ),
    "blank subscriber": OverHttp(ErrorCode.USER_UNKNOWN, 200, _add(session_type="1", subscribers=[{"user_id": ""}])),
    "unknown session": OverHttp(ErrorCode.SESSION_UNKNOWN, 200, _modify(session_id="no-such", session_name="x")),
    "unknown session, /v1": OverHttp(ErrorCode.SESSION_UNKNOWN, 404, lambda call: call.client.session("no-such")),
    "somebody else removes": OverHttp(
        ErrorCode.NOT_ALLOWED, 200, lambda call: call.client.legacy("deleteSession", session_id=call.his)
    ),
    "somebody else removes, /v1": OverHttp(
        ErrorCode.NOT_ALLOWED, 403, lambda call: call.client.delete_session(call.his)
    ),
    "nothing to modify": OverHttp(ErrorCode.FIELD_INVALID, 200, _modify()),
    "too long a name": OverHttp(ErrorCode.FIELD_INVALID, 200, _modify(session_name="x" * 129)),
    "unknown file": OverHttp(ErrorCode.FILE_UNKNOWN, 404, lambda call: call.client.call("GET", "/v1/files/no-such")),
    "too many logins": OverHttp(
        ErrorCode.TOO_MANY_REQUESTS, 429, lambda call: _log_in_too_often(call.client, call.alice)
    ),
}

OVER_XMPP_CODES = sorted({over.code for over in OVER_XMPP.values()} | {code for code, _ in TEXTS.values()})
OVER_HTTP_CODES = sorted({over.code for over in OVER_HTTP.values()})


async def _log_in_too_often(client: HttpClient, person: Person) -> None:
    for _ in range(20):
        await client.log_in(person.user_id, person.password)


@pytest.mark.proves(*OVER_XMPP_CODES, "field encode", "field encrypt")
async def test_over_xmpp_the_sender_hears_the_code_and_nothing_is_stored_or_delivered(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    bodies: dict[str, str | None] = {name: text for name, (_, text) in TEXTS.items()}
    bodies |= {name: raw_envelope(alice, bob, **over.changes) for name, over in OVER_XMPP.items()}
    expected = {name: (over.code, over.code.value, over.field) for name, over in OVER_XMPP.items()}
    for name, (code, _) in TEXTS.items():
        expected[name] = (code, code.value, "body" if code is ErrorCode.BODY_EMPTY else None)

    sent = {phone.send_body(body, bob.entrance): name for name, body in bodies.items()}
    refusals = [await phone.expect(Refused) for _ in sent]

    heard = {sent[refusal.stanza_id]: (refusal.code, refusal.body, refusal.field) for refusal in refusals}
    assert heard == expected
    assert all(refusal.text for refusal in refusals)
    marker = alice.text_to(bob, "marker")
    await assert_next_is(receiver, phone, marker)
    assert await ids_in_history(await bob.http(), alice) == [marker.msg_id]
    assert receiver.inbox.all(Refused) == []


@pytest.mark.proves(*OVER_HTTP_CODES)
async def test_over_http_the_caller_gets_the_code_in_the_shape_of_the_address(people: People) -> None:
    alice, bob = await people("alice", "bob")
    client, other = await alice.http(), await bob.http()
    hers = await client.add_session([bob.user_id])
    his = await other.add_session([alice.user_id])
    call = Call(client, alice, hers["session_id"], his["session_id"])

    heard = {}
    for name, over in OVER_HTTP.items():
        with pytest.raises(RefusedError) as refusal:
            await over.request(call)
        heard[name] = (refusal.value.code, refusal.value.status)

    assert heard == {name: (over.code, over.status) for name, over in OVER_HTTP.items()}
    untouched = await other.sessions()
    assert {one["session_id"]: (one["session_name"], one["version"]) for one in untouched} == {
        one["session_id"]: (one["session_name"], one["version"]) for one in (hers, his)
    }


@pytest.mark.proves(ErrorCode.UNAVAILABLE)
async def test_while_a_dependency_is_down_the_sender_is_told_to_try_again_and_then_succeeds(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver, client = await alice.device(), await bob.device(), await alice.http()
    message = alice.text_to(bob, "who are you?")

    await asyncio.to_thread(disturbed_stack.stop_service, "session-api")
    phone.send(message)
    refused = await phone.expect(Refused)
    with pytest.raises(RefusedError) as over_http:
        await client.sessions()
    await asyncio.to_thread(disturbed_stack.start_service, "session-api")
    stored = await phone.send_until_stored(message)

    assert (refused.code, refused.msg_id) == (ErrorCode.UNAVAILABLE, message.msg_id)
    assert (over_http.value.code, over_http.value.status) == (ErrorCode.UNAVAILABLE, 503)
    assert (await next_delivered(receiver)).seq == stored.seq
    assert await client.sessions() == []

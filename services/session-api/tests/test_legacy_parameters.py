"""Reading the specification's parameters: every form a client sends them in, every way they can be wrong."""

import asyncio
from collections.abc import Callable

import pytest
from session_api.edits import MAX_LISTED
from session_api.legacy_parameters import (
    Parameters,
    read_edit,
    read_named_user,
    read_new_session,
    read_parameters,
    read_session_id,
)
from starlette.requests import Request
from starlette.types import Message
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime import bodies
from tlim_runtime.bodies import BodyTooSlow

PRINTED = "[\n  {\n  user_id:'clientA'\n  },\n  {\n  user_id:'clientB'\n  },\n]"  # as the specification prints it


async def parameters_of(
    method: str, *, query: bytes = b"", body: bytes = b"", content_type: str | None = None
) -> Parameters:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": method, "path": "/", "query_string": query, "headers": headers}
    return await read_parameters(Request(scope, receive), max_bytes=1_000_000)


async def test_query_form_multipart_and_json_say_the_same() -> None:
    form = b"session_name=%E4%BC%9A%E8%AE%AE&x=1"
    boundary = "multipart/form-data; boundary=b"
    part = '--b\r\nContent-Disposition: form-data; name="session_name"\r\n\r\n会议\r\n--b--\r\n'.encode()
    said = [
        await parameters_of("GET", query=form),
        await parameters_of("POST", body=form),
        await parameters_of("POST", body=form, content_type="application/x-www-form-urlencoded;charset=UTF-8"),
        await parameters_of("POST", body=part, content_type=boundary),
        await parameters_of("POST", body='{"session_name":"会议"}'.encode(), content_type="application/json"),
        await parameters_of("POST", body="{session_name:'会议'}".encode(), content_type="text/plain"),
    ]
    assert [one["session_name"] for one in said] == ["会议"] * 6


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=b", "application/json", None])
async def test_a_body_that_never_ends_is_refused(content_type: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    parts = iter([b"--b\r\n"])

    async def receive() -> Message:
        for part in parts:
            return {"type": "http.request", "body": part, "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    async with asyncio.timeout(5):
        with pytest.raises(BodyTooSlow):
            await read_parameters(Request(scope, receive), max_bytes=1_000_000)


async def test_utf8_that_is_not_percent_encoded_is_read_as_utf8() -> None:
    raw = "session_name=会议".encode()
    assert await parameters_of("GET", query=raw) == {"session_name": "会议"}
    assert await parameters_of("POST", body=raw) == {"session_name": "会议"}


async def test_the_body_goes_before_the_query() -> None:
    assert await parameters_of("POST", query=b"a=1&b=2", body=b"b=3") == {"a": "1", "b": "3"}


async def test_a_plus_is_a_blank() -> None:
    assert await parameters_of("POST", body=b"session_name=a+b") == {"session_name": "a b"}


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff"])
async def test_a_json_body_that_is_no_object_does_not_parse(body: bytes) -> None:
    with pytest.raises(TlimError) as refused:
        await parameters_of("POST", body=body, content_type="application/json")
    assert refused.value.code is ErrorCode.JSON_INVALID


@pytest.mark.parametrize("raw", [b"session_name=%ff", b"session_name=\xff", b"&".join(b"a=1" for _ in range(101))])
async def test_parameters_that_are_not_utf8_or_too_many_are_refused(raw: bytes) -> None:
    with pytest.raises(TlimError) as refused:
        await parameters_of("GET", query=raw)
    assert refused.value.code is ErrorCode.FIELD_INVALID


def test_add_session_as_the_specification_prints_it() -> None:
    new = read_new_session({"session_type": "1", "subscribers": PRINTED})
    assert (new.session_type, new.subscribers) == (1, ["clientA", "clientB"])


def test_real_json_is_as_good_as_json_as_text() -> None:
    new = read_new_session({"session_type": 0, "subscribers": [{"user_id": "bob"}]})
    assert (new.session_type, new.subscribers) == (0, ["bob"])


@pytest.mark.parametrize("wrong", [None, "", " ", "one", "-1", "1.5", "٣", "1" * 21, True, 1.0, [], {}])
def test_a_session_type_that_is_no_integer_is_refused(wrong: object) -> None:
    with pytest.raises(TlimError) as refused:
        read_new_session({"session_type": wrong, "subscribers": "[]"})
    assert refused.value.code is ErrorCode.SESSION_TYPE_INVALID


@pytest.mark.parametrize(
    ("subscribers", "code"),
    [
        (None, ErrorCode.FIELD_INVALID),
        ("", ErrorCode.JSON_INVALID),
        ("[{", ErrorCode.JSON_INVALID),
        ("{}", ErrorCode.NOT_AN_ARRAY),
        ('"bob"', ErrorCode.NOT_AN_ARRAY),
        ('["bob"]', ErrorCode.NOT_AN_ARRAY),
        ("null", ErrorCode.NOT_AN_ARRAY),
        ({"user_id": "bob"}, ErrorCode.NOT_AN_ARRAY),
        ("[{}]", ErrorCode.USER_UNKNOWN),
        ('[{"user_id":null}]', ErrorCode.USER_UNKNOWN),
        ('[{"user_id":7}]', ErrorCode.FIELD_INVALID),
    ],
)
def test_subscribers_that_are_no_array_of_users_are_refused(subscribers: object, code: ErrorCode) -> None:
    with pytest.raises(TlimError) as refused:
        read_new_session({"session_type": "1", "subscribers": subscribers})
    assert refused.value.code is code


def test_a_list_far_longer_than_any_group_is_refused() -> None:
    many = [{"user_id": "bob"}] * (MAX_LISTED + 1)
    with pytest.raises(TlimError) as refused:
        read_new_session({"session_type": 0, "subscribers": many})
    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, "subscribers")


def test_modify_session_as_the_specification_prints_it() -> None:
    printed = "[{user_id:'a',type:'del'},{user_id:'b',type:'delete'},{user_id:'c',type:'add'},]"
    edit = read_edit({"session_name": "hello,world", "subscribers": printed})
    assert (edit.session_name, edit.add, edit.remove) == ("hello,world", ["c"], ["a", "b"])


def test_what_is_not_given_is_not_asked_for() -> None:
    edit = read_edit({})
    assert (edit.session_name, edit.add, edit.remove) == (None, [], [])
    assert read_edit({"session_name": None, "subscribers": None}) == edit


@pytest.mark.parametrize("kind", ['"remove"', "1", "null", "[]"])
def test_an_unknown_type_of_change_is_refused(kind: str) -> None:
    with pytest.raises(TlimError) as refused:
        read_edit({"subscribers": f'[{{"user_id":"bob","type":{kind}}}]'})
    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, "type")


def test_a_missing_type_of_change_is_refused() -> None:
    with pytest.raises(TlimError) as refused:
        read_edit({"subscribers": '[{"user_id":"bob"}]'})
    assert refused.value.field == "type"


@pytest.mark.parametrize(
    ("read", "name"), [(read_session_id, "session_id"), (read_edit, "session_name"), (read_named_user, "user_id")]
)
def test_a_number_where_text_belongs_is_refused(read: Callable[[Parameters], object], name: str) -> None:
    with pytest.raises(TlimError) as refused:
        read({name: 7})
    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, name)


def test_a_missing_session_id_reads_as_blank() -> None:
    assert (read_session_id({}), read_session_id({"session_id": " s-1 "})) == ("", "s-1")


def test_the_user_is_named_by_the_first_parameter_that_names_one() -> None:
    assert read_named_user({"user_id": "c", "session_user": "b", "request_user": "a"}) == "a"
    assert read_named_user({"user_id": "c", "session_user": " "}) == "c"
    assert read_named_user({}) is None

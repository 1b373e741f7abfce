"""What read_json refuses before it reads: more values than any message needs, wherever they are hidden."""

import base64
import json
import zlib
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlim_protocol import lenient
from tlim_protocol.envelope import read_envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.lenient import MAX_VALUES, read_json

TOO_MANY = MAX_VALUES + 1


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _envelope(body: object, **more: str) -> str:
    return json.dumps({"from": "alice", "to": "bob", "msg_type": "MTT-000", "msg_id": "1", "body": body, **more})


def _count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def test_exactly_as_many_values_as_allowed_are_read() -> None:
    value = [1] * (MAX_VALUES - 1)

    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1," * MAX_VALUES + "1]",
        "[" + "{}," * MAX_VALUES + "{}]",
        "[" * TOO_MANY,
        "[" * TOO_MANY + "]" * TOO_MANY,
        "{" + '"a":1,' * MAX_VALUES + '"b":1}',
        "{" + "a:1," * TOO_MANY + "}",
        "['it\\'s', \"'\", " + "1," * MAX_VALUES + "]",
        "[/* ' \" */" + "1," * MAX_VALUES + "]",
        "[// '\n" + "1," * MAX_VALUES + "]",
        "[// '\r" + "1," * MAX_VALUES + "]",
        "[// '\u2028" + "1," * MAX_VALUES + "]",
        "[// '\u2029" + "1," * MAX_VALUES + "]",
        "[// \u2018\n" + "1," * MAX_VALUES + "]",
    ],
)
def test_more_values_are_refused_before_any_parser_sees_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient, "read_strict", None)
    monkeypatch.setattr(lenient, "_read_json5", None)

    with pytest.raises(TlimError) as refused:
        read_json(text)

    assert refused.value.code is ErrorCode.FIELD_INVALID


@pytest.mark.parametrize(
    "value",
    [[",[{" * TOO_MANY], ["\"',[" * TOO_MANY], ["\\"] * 3 + ["," * TOO_MANY], {"," * TOO_MANY: "{" * TOO_MANY}],
)
def test_commas_and_brackets_inside_of_strings_are_no_values(value: object) -> None:
    assert read_json(json.dumps(value)) == value


def test_commas_inside_of_comments_and_single_quotes_are_no_values() -> None:
    inside = ",[{" * TOO_MANY

    assert read_json(f"/*{inside}*/['{inside}' //{inside}\n]") == [inside]


@given(st.text(alphabet="[]{},:\"'/*\\\n\r\u2028\u2019ae1 ", max_size=40), st.integers(min_value=1, max_value=6))
def test_what_is_read_never_holds_more_values_than_allowed(text: str, most: int) -> None:
    try:
        value = read_json(text, most)
    except TlimError:
        return

    assert _count(value) <= most


@pytest.mark.parametrize(
    "envelope",
    [
        _envelope(_packed('[{"text":"x","a":[' + "1," * 480_000 + "1]}]"), compress="1"),
        _envelope(_packed("[" + "1," * 480_000 + "1]"), compress="1"),
        _envelope('[{"text":"x","a":[' + "1," * 100_000 + "1]}]"),
        _envelope([{"text": "x", "a": [1] * TOO_MANY}]),
    ],
    ids=["compressed", "compressed, and no objects", "a text in a text", "plain"],
)
def test_a_message_of_too_many_values_is_refused_and_names_the_body(envelope: str) -> None:
    with pytest.raises(TlimError) as refused:
        read_envelope(envelope, "alice")

    assert (refused.value.code, refused.value.field) == (ErrorCode.FIELD_INVALID, "body")


def test_a_long_text_with_many_commas_is_a_message() -> None:
    envelope = read_envelope(_envelope([{"text": "so, " * 50_000}]), "alice")

    assert len(cast("str", envelope.body[0]["text"])) == 200_000

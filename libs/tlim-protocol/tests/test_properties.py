"""Property tests: any input gives an envelope or one documented error; what was written reads back the same."""

import base64
import json
import sys
import unicodedata
import zlib
from contextlib import suppress
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlim_protocol.characters import shows_something
from tlim_protocol.envelope import read_envelope, write_envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import AcceptedMessage, RejectedMessage
from tlim_protocol.identity import SHARDS, conversation_of_users, normalize_user_id, shard_of
from tlim_protocol.lenient import read_json, same_json, write_json
from tlim_protocol.registry import CLIENT_TYPES, REGISTRY, MsgType
from tlim_protocol.subjects import out_message_id

SENDER = "alice"

characters = st.characters(codec="utf-8")  # everything but lone surrogates: XML cannot carry those
texts = st.text(characters, min_size=1, max_size=40)
ids = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=64).filter(
    shows_something
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def envelopes(draw: st.DrawFn) -> dict[str, object]:
    """Draw a valid envelope of any client type, with unknown keys in its elements."""
    msg_type = draw(st.sampled_from(CLIENT_TYPES))
    session = draw(ids)
    element = {**draw(st.dictionaries(texts, json_values, max_size=3))}
    for field in REGISTRY[msg_type].element:
        element[field.name] = session if field.name == "session_id" else draw(texts if field.name == "text" else ids)
    return {
        "from": draw(st.sampled_from(["alice", "Alice", "ALICE"])),
        "to": draw(st.sampled_from(["bob", "张伟", "carol.smith"])),
        "msg_id": draw(ids),
        "msg_type": msg_type.value,
        "body": [element],
        **draw(st.fixed_dictionaries({}, optional={"msg_time": st.just("1599218283837"), "version": st.just("1.0")})),
    }


@given(st.text(characters) | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_gives_an_envelope_or_one_documented_error(text: str) -> None:
    with suppress(TlimError):
        read_envelope(text, SENDER)


@given(envelopes(), st.data())
def test_any_damage_to_a_valid_envelope_gives_an_envelope_or_one_documented_error(
    fields: dict[str, object], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([*fields, "compress", "encode", "encrypt", "version", "msg_time"]))
    fields[name] = data.draw(json_values)
    text = json.dumps(fields, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(text)))
    for damaged in (text, text[:cut], text[:cut] + "\x00" + text[cut:]):
        with suppress(TlimError):
            read_envelope(damaged, SENDER)


@given(envelopes())
def test_what_was_written_reads_back_the_same_and_may_stand_in_xml(fields: dict[str, object]) -> None:
    envelope = read_envelope(json.dumps(fields, ensure_ascii=False), SENDER)
    assert envelope.body == fields["body"], "elements are kept untouched"
    assert envelope.msg_from == SENDER
    written = write_envelope(envelope)
    assert read_envelope(written, SENDER) == envelope
    assert write_envelope(read_envelope(written, SENDER)) == written
    assert ET.fromstring(f"<body>{_escape(written)}</body>").text == written  # noqa: S314 - our own text


@given(envelopes())
def test_an_envelope_travels_over_nats_unchanged(fields: dict[str, object]) -> None:
    event = AcceptedMessage(
        sender=SENDER,
        reply_to="alice@im.itonglian.com/phone",
        stanza_id="s1",
        location="mobile",
        received_at=1,
        envelope=read_envelope(json.dumps(fields), SENDER),
    )
    assert AcceptedMessage.from_bytes(event.to_bytes()) == event


@given(st.lists(st.dictionaries(texts, json_values, max_size=3), min_size=1, max_size=3))
def test_a_compressed_body_is_the_same_as_a_plain_one(elements: list[dict[str, object]]) -> None:
    elements[0]["text"] = "x"
    for element in elements[1:]:
        element["text"] = "y"
    plain = {"from": SENDER, "to": "bob", "msg_id": "1", "msg_type": MsgType.TEXT.value, "body": elements}
    packed = base64.b64encode(zlib.compress(json.dumps(elements).encode())).decode()
    as_text = {**plain, "body": json.dumps(elements)}
    expected = read_envelope(json.dumps(plain), SENDER)
    assert read_envelope(json.dumps({**plain, "compress": "1", "body": packed}), SENDER) == expected
    assert read_envelope(json.dumps(as_text), SENDER) == expected


@given(json_values)
def test_lenient_reading_of_strict_json_is_strict_reading(value: object) -> None:
    assert read_json(write_json(value)) == value
    assert read_json(json.dumps(value)) == value


@given(st.text(characters, max_size=80))
def test_user_ids_are_folded_once_and_for_all_or_refused(raw: str) -> None:
    with suppress(TlimError):
        folded = normalize_user_id(raw)
        assert normalize_user_id(folded) == folded
        assert ":" not in folded
        assert 0 < len(folded) <= 64
        assert unicodedata.is_normalized("NFKC", folded)


def test_what_is_far_too_long_is_no_user_id() -> None:
    with pytest.raises(TlimError):
        normalize_user_id("bob" + "\u00ad" * 1_000)  # soft hyphens, which folding drops


def test_no_character_is_folded_twice() -> None:
    assigned = (char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char)[0] != "C")
    for character in assigned:
        with suppress(TlimError):
            folded = normalize_user_id(character)
            assert normalize_user_id(folded) == folded, ascii(character)


@given(ids, ids, ids, ids)
def test_two_refusals_share_a_message_id_only_if_they_are_of_the_same_message(a: str, b: str, c: str, d: str) -> None:
    one, other = (
        RejectedMessage(
            code=ErrorCode.NOT_ALLOWED,
            detail="",
            msg_id=msg_id,
            msg_type=MsgType.TEXT,
            sender=sender,
            reply_to="",
            stanza_id="",
            received_at=1,
            after_seq=0,
        )
        for sender, msg_id in ((a, b), (c, d))
    )
    assert (out_message_id(one) == out_message_id(other)) == ((a, b) == (c, d))


@given(ids, ids)
def test_a_conversation_is_the_same_from_both_sides_and_stays_in_one_shard(one: str, other: str) -> None:
    conversation = conversation_of_users(one, other)
    assert conversation == conversation_of_users(other, one)
    assert 0 <= shard_of(conversation) < SHARDS


@given(json_values)
def test_a_value_says_the_same_with_its_keys_turned_and_spread_over_lines(value: object) -> None:
    assert same_json(write_json(value), json.dumps(_turned(value), indent=1))


@given(json_values, json_values)
def test_only_equal_values_say_the_same(one: object, other: object) -> None:
    assert one == other or not same_json(write_json(one), write_json(other))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ('[{"a":1,"b":2}]', '[{"b":2,"a":1}]', True),
        ("[100.10]", "[100.1]", True),
        ("[1e2]", "[100]", True),
        ("[1]", "[true]", False),
        ("[1]", '["1"]', False),
        ("[1]", "[[1]]", False),
        ("[null]", "[]", False),
        ("[0.12345678901234567891]", "[0.12345678901234567892]", False),
        ('["a"]', '["\\u0061"]', True),
        ("[0e99999999999999999999]", "[0e99999999999999999999]", True),
        ("[1e-99999999999999999999]", "[1e-99999999999999999998]", False),
    ],
)
def test_how_a_value_is_written_does_not_count_and_what_it_is_does(one: str, other: str, expected: bool) -> None:
    assert same_json(one, other) is expected


def _turned(value: object) -> object:
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

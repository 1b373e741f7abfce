"""Hostile input: the system answers it with a code or ends that client's stream, and serves everybody else."""

import json

import pytest
from tlim_client.inbox import Refused
from tlim_protocol.envelope import MAX_STANZA_BYTES
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People, assert_next_is, next_delivered
from tests.e2e.clients.raw import packed, raw_envelope
from tests.e2e.conftest import not_on_openfire

TOO_MANY_VALUES = "nested without end"  # counted before anything is read
GARBAGE = {
    "words": "hello there",
    "a lone quote": "'",
    TOO_MANY_VALUES: "[" * 50_000,
    "nested and closed": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "not a number": '{"msg_type": NaN}',
    "a huge number": '{"msg_type": 1e999999}',
    "half a character": '{"msg_id": "\\ud800"}',
    "a null character": '{"msg_id": "\\u0000", "msg_type": 1}',
    "unicode noise": "\u202e\u0300\ufffd" * 100,
    "a script": "<script>alert(1)</script>",
}


async def test_garbage_is_answered_with_one_code_each_and_harms_nobody(people: People) -> None:
    mallory, bob = await people("mallory", "bob")
    device, receiver = await mallory.device(), await bob.device()

    sent = {device.send_body(text, bob.entrance): name for name, text in GARBAGE.items()}
    refusals = [await device.expect(Refused) for _ in sent]

    codes = {sent[refusal.stanza_id]: refusal.code for refusal in refusals}
    assert set(codes) == set(GARBAGE)
    assert codes.pop(TOO_MANY_VALUES) is ErrorCode.FIELD_INVALID
    assert set(codes.values()) <= {ErrorCode.JSON_INVALID, ErrorCode.MSG_TYPE_INVALID}
    await assert_next_is(receiver, device, mallory.text_to(bob, "sorry"))


@pytest.mark.proves(ErrorCode.FIELD_INVALID)
async def test_a_stanza_over_the_limit_is_refused_and_one_just_below_it_is_delivered(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    room = MAX_STANZA_BYTES - 2_000
    big = raw_envelope(alice, bob, body=[{"text": "x" * room}])

    stanza_id = phone.send_body(raw_envelope(alice, bob, body=[{"text": "x" * MAX_STANZA_BYTES}]), bob.entrance)
    phone.send_body(big, bob.entrance)

    refused = await phone.expect(Refused)
    assert (refused.code, refused.stanza_id) == (ErrorCode.FIELD_INVALID, stanza_id)
    assert len((await next_delivered(receiver)).envelope.body[0]["text"]) == room


@pytest.mark.proves("field compress", ErrorCode.FIELD_INVALID)
async def test_a_small_message_that_unpacks_to_a_giant_is_refused_without_unpacking_it(people: People) -> None:
    mallory, bob = await people("mallory", "bob")
    device, receiver = await mallory.device(), await bob.device()
    bomb = packed(b'[{"text":"' + b"0" * (100 << 20) + b'"}]')
    assert len(bomb) < MAX_STANZA_BYTES

    device.send_body(raw_envelope(mallory, bob, compress="1", body=bomb), bob.entrance)

    assert (await device.expect(Refused)).code is ErrorCode.FIELD_INVALID
    await assert_next_is(receiver, device, mallory.text_to(bob, "sorry"))


async def test_a_message_that_unpacks_to_many_times_a_stanza_s_size_is_delivered(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    body = [{"text": "<&>" * 300_000}]

    phone.send_body(raw_envelope(alice, bob, compress="1", body=packed(json.dumps(body).encode())), bob.entrance)

    assert (await next_delivered(receiver)).envelope.body == body
    (kept,) = await (await bob.http()).history(alice.user_id)
    assert kept["body"] == body


@not_on_openfire("a stream that is no longer XML stays open without an answer")
@pytest.mark.parametrize("xml", ["<message", "</stream:stream>", "<a><b></a>", "\x01", "<!DOCTYPE x>"])
async def test_what_is_no_xml_troubles_nobody_but_the_client_that_wrote_it(people: People, xml: str) -> None:
    mallory, bob = await people("mallory", "bob")
    device, receiver = await mallory.device(), await bob.device()

    device.send_xml(xml)

    await assert_next_is(receiver, device, mallory.text_to(bob, "back again"), retry_after=1)


@pytest.mark.proves("field body")
async def test_unknown_keys_are_kept_in_elements_and_dropped_from_the_envelope(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    element = {"text": "hi", "future": {"nested": [1, 2.5, None, "x"]}}

    phone.send_body(raw_envelope(alice, bob, body=[element], surprise="!"), bob.entrance)

    assert (await next_delivered(receiver)).envelope.body == [element]
    (kept,) = await (await bob.http()).history(alice.user_id)
    assert kept["body"] == [element]

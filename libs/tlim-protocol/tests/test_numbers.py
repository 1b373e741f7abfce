"""Numbers in a body come out as they went in, from the sender's envelope to the receiver's."""

import json

import pytest
from tlim_protocol.envelope import read_envelope, write_envelope
from tlim_protocol.events import AcceptedMessage, StoredMessage, read_out_event
from tlim_protocol.lenient import read_json, read_strict, write_json

NUMBERS = ["100.10", "1e2", "1E+2", "0.1000000000000000055511151231257827", "-0.0", "1.0", "12345678901234567890", "7"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_written_as_it_was_read(number: str) -> None:
    assert write_json(read_json(f'{{"price":{number}}}')) == f'{{"price":{number}}}'


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_travels_as_it_was_written(number: str) -> None:
    body = f'[{{"session_id":"s","price":{number},"more":[{{"of":{number}}}]}}]'
    text = f'{{"from":"alice","msg_id":"1","msg_type":"MTS-004","body":{body}}}'
    accepted = AcceptedMessage(
        sender="alice",
        reply_to="alice@im.example/phone",
        stanza_id="1",
        location="mobile",
        received_at=1,
        envelope=read_envelope(text, "alice"),
    )
    arrived = AcceptedMessage.from_bytes(accepted.to_bytes())
    assert arrived == accepted
    row = write_json(arrived.envelope.body)
    assert row == body
    stored = StoredMessage(
        seq=1,
        stored_at=1,
        recipients=["bob"],
        envelope=arrived.envelope.model_copy(update={"body": read_strict(row)}),
    )
    delivered = read_out_event(stored.to_bytes())
    assert isinstance(delivered, StoredMessage)
    assert body in write_envelope(delivered.envelope)


def test_a_body_that_is_a_text_keeps_its_numbers_too() -> None:
    body = '[{"session_id":"s","price":100.10}]'
    text = json.dumps({"from": "alice", "msg_id": "1", "msg_type": "MTS-004", "body": body})
    assert body in write_envelope(read_envelope(text, "alice"))


def test_a_number_is_a_number() -> None:
    assert read_json("[1.50]") == [1.5]

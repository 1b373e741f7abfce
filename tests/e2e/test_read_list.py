"""The ledger of a message: which receivers have received it, have read it, or have not yet."""

import pytest
from tlim_client.compose import group_message, receipt
from tlim_client.failures import RefusedError
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People


@pytest.mark.proves("GET /v1/messages/{msg_id}", MsgType.RECEIVED, MsgType.READ)
async def test_the_author_sees_who_of_a_session_has_received_and_read_it(people: People) -> None:
    author, reader, busy, away = await people("author", "reader", "busy", "away")
    phone, client = await author.device(), await author.http()
    session_id = (await client.add_session([one.user_id for one in (reader, busy, away)]))["session_id"]
    message = group_message(author.user_id, session_id, MsgType.TEXT, {"text": "meeting at 3"})
    await phone.send_until_stored(message)
    for person, kind in ((reader, MsgType.READ), (busy, MsgType.RECEIVED)):
        await (await person.device()).send_until_stored(receipt(person.user_id, message, kind))

    told = await client.message(message.msg_id)

    assert (told["members"], told["delivered"], told["read"]) == (3, 2, 1)
    assert {line["user_id"]: (line["delivered_at"] is not None, line["read_at"] is not None)
            for line in told["receipts"]} == {
        reader.user_id: (True, True), busy.user_id: (True, False), away.user_id: (False, False),
    }  # fmt: skip
    for state, people_then in (("read", [reader]), ("undelivered", [away])):
        narrowed = await client.message(message.msg_id, state=state)
        assert [line["user_id"] for line in narrowed["receipts"]] == [one.user_id for one in people_then]


@pytest.mark.proves("GET /v1/messages/{msg_id}", ErrorCode.MSG_ID_UNKNOWN)
async def test_between_two_people_both_see_it_and_a_stranger_sees_nothing(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, receiver = await alice.device(), await bob.device()
    message = alice.text_to(bob, "between us")
    stored = await phone.send_until_stored(message)
    await receiver.send_until_stored(receipt(bob.user_id, message, MsgType.READ))

    for person in (alice, bob):
        told = await (await person.http()).message(message.msg_id)
        assert (told["seq"], told["stored_at"], told["body"]) == (stored.seq, str(stored.time), message.body)
        assert [line["user_id"] for line in told["receipts"]] == [bob.user_id]
        assert told["read"] == 1
    with pytest.raises(RefusedError) as refusal:
        await (await carol.http()).message(message.msg_id)
    assert refusal.value.code is ErrorCode.MSG_ID_UNKNOWN

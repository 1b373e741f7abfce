"""A message is sent again with the same msg_id: the answer is `stored` again; it is stored and delivered only once."""

import asyncio

import pytest
from tlim_client.compose import about
from tlim_client.inbox import Refused, Stored
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People, assert_next_is, ids_in_history, next_delivered
from tests.e2e.clients.raw import packed, raw_envelope


@pytest.mark.proves("field msg_id")
@pytest.mark.proves("promise once")
async def test_a_resend_is_confirmed_with_the_first_seq_and_neither_stored_nor_delivered_again(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message, marker = alice.text_to(bob, "once"), alice.text_to(bob, "marker")

    first = await phone.send_until_stored(message)
    await next_delivered(receiver)
    again = [await phone.send_until_stored(message) for _ in range(3)]

    assert again == [first] * 3
    await assert_next_is(receiver, phone, marker)
    assert await ids_in_history(await bob.http(), alice) == [message.msg_id, marker.msg_id]


@pytest.mark.proves("promise once")
async def test_resends_at_the_same_moment_are_all_confirmed_and_stored_once(people: People) -> None:
    alice, bob = await people("alice", "bob")
    devices = [await alice.device() for _ in range(2)]
    receiver = await bob.device()
    message, marker = alice.text_to(bob, "once"), alice.text_to(bob, "marker")

    for device in devices * 3:
        device.send(message)
    confirmed = [await device.expect(Stored) for device in devices * 3]

    assert len(set(confirmed)) == 1
    await next_delivered(receiver)
    await assert_next_is(receiver, devices[0], marker)
    assert await ids_in_history(await alice.http(), bob) == [message.msg_id, marker.msg_id]


@pytest.mark.proves("field msg_id", ErrorCode.FIELD_INVALID)
async def test_a_msg_id_is_for_one_message_and_another_one_under_it_is_refused(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, receiver, other_receiver = await alice.device(), await bob.device(), await carol.device()
    message, marker = alice.text_to(bob, "once"), alice.text_to(bob, "marker")
    first = await phone.send_until_stored(message)
    await next_delivered(receiver)

    recall = about(alice.user_id, MsgType.RECALL, [message.msg_id], to=bob.user_id)
    for other in (recall, alice.text_to(carol, "once"), message.model_copy(update={"body": [{"text": "twice"}]})):
        phone.send(other.model_copy(update={"msg_id": message.msg_id}))
        refused = await phone.expect(Refused)
        assert (refused.code, refused.field, refused.msg_id) == (ErrorCode.FIELD_INVALID, "msg_id", message.msg_id)

    assert await phone.send_until_stored(message) == first
    await assert_next_is(receiver, phone, marker)
    await assert_next_is(other_receiver, phone, alice.text_to(carol, "marker"))
    history = await (await bob.http()).history(alice.user_id)
    assert [(item["body"], item["recalled"]) for item in history] == [(marker.body, False), (message.body, False)]


async def test_a_body_comes_again_compressed_or_with_its_keys_in_another_order(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message = alice.text_to(bob, "once").model_copy(update={"body": [{"text": "once", "number": 1.5, "more": [None]}]})
    first = await phone.send_until_stored(message)

    body = packed(b'[{"more": [null], "number": 1.50, "text": "once"}]')
    phone.send_body(raw_envelope(alice, bob, msg_id=message.msg_id, compress="1", body=body), bob.entrance)

    assert await phone.expect(Stored) == first
    await next_delivered(receiver)
    await assert_next_is(receiver, phone, alice.text_to(bob, "marker"))


@pytest.mark.proves("field msg_id")
async def test_the_same_msg_id_of_another_sender_is_another_message(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    message = alice.text_to(carol, "from alice")
    namesake = bob.text_to(carol, "from bob").model_copy(update={"msg_id": message.msg_id})
    receiver = await carol.device()

    first = await (await alice.device()).send_until_stored(message)
    second = await (await bob.device()).send_until_stored(namesake)

    assert first.seq < second.seq
    assert (await next_delivered(receiver)).envelope == message
    assert (await next_delivered(receiver)).envelope == namesake


async def test_a_resend_over_another_connection_of_the_bridge_is_confirmed_too(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message, marker = alice.text_to(bob, "once"), alice.text_to(bob, "marker")
    first = await phone.send_until_stored(message)
    await next_delivered(receiver)

    await asyncio.to_thread(disturbed_stack.restart, "xmpp-bridge")
    again = await phone.send_until_stored(message)

    assert again == first
    await assert_next_is(receiver, phone, marker)


async def test_a_refused_msg_id_can_be_used_again(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message = alice.text_to(bob, "corrected")
    broken = message.model_copy(update={"body": [{"text": ""}]})

    phone.send(broken)
    refused = await phone.expect(Refused)
    stored = await phone.send_until_stored(message)

    assert (refused.code, refused.msg_id) == (ErrorCode.BODY_EMPTY, message.msg_id)
    assert (await next_delivered(receiver)).seq == stored.seq

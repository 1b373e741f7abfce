"""The same msg_id again: one row, `stored` again, not delivered again."""

import asyncio

import pytest
from tlim_client.inbox import Refused, Stored
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People, assert_next_is, ids_in_history, next_delivered


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

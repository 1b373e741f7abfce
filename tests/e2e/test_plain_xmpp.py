"""Ordinary XMPP chat is left alone: it passes unchanged, even when tlim is down."""

import asyncio
import json

from tlim_client.inbox import Bounced, Delivered, Plain, Refused, Stored
from tlim_devstack.stack import Stack

from tests.e2e.clients.people import People, assert_next_is, ids_in_history
from tests.e2e.clients.raw import raw_envelope
from tests.e2e.conftest import not_on_openfire


async def test_plain_chat_is_delivered_untouched_and_neither_stored_nor_answered(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    await receiver.features_of(bob.jid.partition("@")[2])  # the answer comes when Bob's presence is known
    texts = ["hello", "{not json", raw_envelope(alice, bob), json.dumps({"from": "somebody else"}), "你好 <b>&amp;</b>"]

    for text in texts:
        phone.send_body(text, bob.jid, location=None)
    arrived = [await receiver.expect(Plain) for _ in texts]

    assert [(event.body, event.from_jid) for event in arrived] == [(text, phone.jid) for text in texts]
    marker = alice.text_to(bob, "marker")
    await assert_next_is(receiver, phone, marker)
    assert await ids_in_history(await bob.http(), alice) == [marker.msg_id]
    assert [event.msg_id for event in phone.inbox.all(Stored)] == [marker.msg_id]
    assert phone.inbox.all(Refused) == []


@not_on_openfire("a message to a component that is away disappears without an error")
async def test_without_the_bridge_plain_chat_works_and_tlim_messages_bounce_instead_of_slipping_through(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message = alice.text_to(bob, "not past the store")

    await asyncio.to_thread(disturbed_stack.stop_service, "xmpp-bridge")
    stanza_id = phone.send(message)
    bounced = await phone.expect(Bounced)
    phone.send_body("plain", bob.jid, location=None)
    plain = await receiver.expect(Plain)

    assert (bounced.stanza_id, bounced.condition) == (stanza_id, "service-unavailable")
    assert plain.body == "plain"
    assert receiver.inbox.all(Delivered) == []
    await asyncio.to_thread(disturbed_stack.start_service, "xmpp-bridge")
    await assert_next_is(receiver, phone, message)

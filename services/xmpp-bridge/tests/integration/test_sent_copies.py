"""What somebody sent, the sender's other devices learn from the store's decision, and from nothing else."""

from typing import Any

import pytest
from tlim_client.inbox import Carbon, Delivered, Plain, Refused, Stored
from tlim_client.xmpp import XmppClient
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_protocol.envelope import Envelope, write_envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

pytestmark = pytest.mark.parametrize(
    "xmpp_server", [Ejabberd, Prosody], indirect=True, ids=lambda kind: kind.package, scope="session"
)


def copies(device: XmppClient) -> list[str]:
    """Return the msg_ids of what another device of this user sent.

    They are in the order in which each came for the first time: if a lease lapses on a busy machine, some come again.
    """
    messages = [carbon.message for carbon in device.inbox.all(Carbon) if carbon.sent]
    return list(dict.fromkeys(message.envelope.msg_id for message in messages if isinstance(message, Delivered)))


def recall_of(msg_id: str) -> Envelope:
    body = [{"msg_id": msg_id}]
    return Envelope(msg_from="alice", msg_to="bob", msg_id="recall", msg_type=MsgType.RECALL, body=body)


async def test_other_devices_get_what_was_stored_and_the_one_that_sent_gets_none(
    world: Any, stored: Any, envelope: Any, eventually: Any
) -> None:
    async with world.ready_bridge():
        phone, laptop, bob = [await world.login(user) for user in ("alice", "alice", "bob")]
        await eventually(lambda: world.mailboxes.is_live("alice"))  # or the answer comes with a catch-up
        answer = envelope("answer", msg_from="bob", msg_to="alice")
        await world.publish(
            stored(0, reply_to=phone.jid),
            stored(1, envelope=answer, recipients=["alice"], reply_to=bob.jid),
            stored(2, reply_to=phone.jid),
        )
        await laptop.expect(Carbon, lambda _: copies(laptop) == ["m0", "m2"])
        inner = [event.message if isinstance(event, Carbon) else event for event in laptop.inbox.history]
        events = [event for event in inner if isinstance(event, Delivered)]
        assert list(dict.fromkeys(event.envelope.msg_id for event in events)) == ["m0", "answer", "m2"]
        assert (events[0].seq, events[0].from_jid, events[0].stanza_id) == (100, phone.jid, "m0")
        assert events[0].envelope == envelope("m0")
        await phone.expect(Stored, lambda event: event.msg_id == "m2")
        assert copies(phone) == []


async def test_a_message_of_an_http_request_is_copied_to_every_device(world: Any, stored: Any) -> None:
    async with world.ready_bridge():
        phone, laptop = await world.login("alice"), await world.login("alice")
        for device in (phone, laptop):  # the server has read who is there
            device.send_body("here", device.jid, location=None)
            await device.expect(Plain)
        await world.publish(stored(0))
        for device in (phone, laptop):
            await device.expect(Carbon, lambda _, device=device: copies(device) == ["m0"])


async def test_what_is_not_decided_or_refused_or_only_confirmed_is_not_copied(
    world: Any, stored: Any, envelope: Any
) -> None:
    async with world.ready_bridge():
        phone, laptop = await world.login("alice"), await world.login("alice")
        phone.send(envelope("undecided"))
        phone.send_body("nonsense", "bob")
        assert (await phone.expect(Refused)).code is ErrorCode.JSON_INVALID
        await world.publish(stored(0, reply_to=phone.jid, recipients=[], is_news=False), stored(1, reply_to=phone.jid))
        await laptop.expect(Carbon, lambda _: copies(laptop) != [])
        assert copies(laptop) == ["m1"]
        assert laptop.inbox.all(Refused) == []


async def test_without_the_bridge_other_devices_hear_nothing(world: Any, envelope: Any) -> None:
    phone, laptop = await world.login("alice"), await world.login("alice")
    phone.send(envelope("bounces"))
    phone.send_body("marker", laptop.jid, location=None)
    await laptop.expect(Plain, lambda message: message.body == "marker")
    assert copies(laptop) == []


async def test_nobody_but_the_bridge_has_anything_copied(world: Any, envelope: Any) -> None:
    async with world.ready_bridge():
        phone, laptop, bob = [await world.login(user) for user in ("alice", "alice", "bob")]
        forged = (
            f"<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' from='{phone.jid}'"
            f" to='{bob.jid}' id='forged'><body>{write_envelope(envelope('forged'))}</body>"
            f"<tlim xmlns='{bob.server.domain}' location='server' seq='1' time='1'/></message></forwarded>"
        )
        for kind in ("headline", "chat"):
            bob.send_xml(f"<message type='{kind}' to='{phone.jid}'>{forged}</message>")
        bob.send_body("first", phone.jid, location=None)  # a copy would come from the phone's session
        await phone.expect(Plain, lambda message: message.body == "first")
        bob.send_body("marker", laptop.jid, location=None)
        await laptop.expect(Plain, lambda message: message.body == "marker")
        assert copies(laptop) == []
        assert laptop.inbox.all(Delivered) == []


async def test_a_copy_that_waits_for_a_device_without_network_is_overtaken_by_the_recall(
    world: Any, stored: Any, eventually: Any
) -> None:
    async with world.ready_bridge():
        phone, laptop = await world.login("alice"), await world.login("alice")
        await world.publish(stored(0, reply_to=phone.jid))
        await laptop.expect(Carbon, lambda _: copies(laptop) == ["m0"])
        laptop.break_connection(until_come_back=True)
        sent = [stored(1), stored(2, envelope=recall_of("m1")), stored(3)]
        await world.publish(*(event.model_copy(update={"reply_to": phone.jid}) for event in sent))
        await eventually(world.all_acknowledged)
        laptop.come_back()
        await laptop.expect(Carbon, lambda _: "m3" in copies(laptop))
        assert copies(laptop) == ["m0", "recall", "m3"]

"""A sender's second device sees what the first one sends; a receiver's devices all see what arrives."""

from tlim_client.inbox import Carbon, Delivered, Refused, Stored
from tlim_client.xmpp import XmppClient
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People
from tests.e2e.clients.raw import raw_envelope


async def _sees(device: XmppClient, message: Envelope) -> Delivered:
    """Return the message as this device got it: itself, or as a copy of what another one got."""

    def is_it(event: object) -> Delivered | None:
        inner = event.message if isinstance(event, Carbon) and not event.sent else event
        return inner if isinstance(inner, Delivered) and inner.envelope == message else None

    return await device.inbox.pick(is_it, 20)


async def test_the_sender_s_second_device_gets_a_copy_when_the_first_one_sends(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, laptop = await alice.device(), await alice.device()
    message = alice.text_to(bob, "from my phone")

    await phone.send_until_stored(message)

    copy = await laptop.expect(Carbon)
    assert copy.sent
    assert isinstance(copy.message, Delivered)
    assert copy.message.envelope == message
    marker = bob.text_to(alice, "behind all that")
    await (await bob.device()).send_until_stored(marker)
    await _sees(laptop, marker)
    assert laptop.inbox.all(Stored) == []


async def test_all_devices_of_the_receiver_see_the_message(people: People) -> None:
    alice, bob = await people("alice", "bob")
    devices = [await bob.device(), await bob.device()]
    message = alice.text_to(bob, "everywhere")

    stored = await (await alice.device()).send_until_stored(message)

    for device in devices:
        assert (await _sees(device, message)).seq == stored.seq


async def test_only_the_device_that_sent_is_told_that_it_was_stored_or_refused(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, laptop = await alice.device(), await alice.device()

    phone.send_body(raw_envelope(alice, bob, body=[]), bob.jid)
    refused = await phone.expect(Refused)
    message = alice.text_to(bob, "stored")
    await phone.send_until_stored(message)
    await laptop.expect(
        Carbon, lambda event: isinstance(event.message, Delivered) and event.message.envelope == message
    )

    assert refused.code is ErrorCode.BODY_EMPTY
    marker = bob.text_to(alice, "behind all that")
    await (await bob.device()).send_until_stored(marker)
    await _sees(laptop, marker)
    assert laptop.inbox.all(Stored) == []
    assert laptop.inbox.all(Refused) == []
    copies_of_received = [copy.message for copy in laptop.inbox.all(Carbon) if not copy.sent]
    assert all(isinstance(message, Delivered) for message in copies_of_received)

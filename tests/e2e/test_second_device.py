"""The sender's second device sees what the first device sends; all devices of the receiver see what arrives."""

import pytest
from tlim_client.compose import about, text_message
from tlim_client.inbox import Carbon, Delivered, Refused, Stored
from tlim_client.xmpp import XmppClient
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People
from tests.e2e.clients.raw import raw_envelope
from tests.e2e.conftest import not_on_openfire


async def _sees(device: XmppClient, message: Envelope) -> Delivered:
    """Return the message as this device got it: itself, or as a copy of what another one got."""

    def is_it(event: object) -> Delivered | None:
        inner = event.message if isinstance(event, Carbon) and not event.sent else event
        return inner if isinstance(inner, Delivered) and inner.envelope == message else None

    return await device.inbox.pick(is_it, 20)


def _sent(device: XmppClient) -> list[Delivered]:
    """Return the copies of what another device of this user sent."""
    copies = [event.message for event in device.inbox.all(Carbon) if event.sent]
    return [message for message in copies if isinstance(message, Delivered)]


async def _sees_copy(device: XmppClient, message: Envelope) -> Delivered:
    await device.expect(Carbon, lambda _: any(copy.envelope == message for copy in _sent(device)))
    return next(copy for copy in _sent(device) if copy.envelope == message)


@not_on_openfire("a copy for the sender's other devices is made before the store has seen the message")
async def test_the_sender_s_second_device_gets_a_copy_of_what_was_stored(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, laptop = await alice.device(), await alice.device()
    message = alice.text_to(bob, "from my phone")

    stored = await phone.send_until_stored(message)

    copy = await _sees_copy(laptop, message)
    assert (copy.seq, copy.time, copy.from_jid) == (stored.seq, stored.time, phone.jid)
    marker = bob.text_to(alice, "behind all that")
    await (await bob.device()).send_until_stored(marker)
    await _sees(laptop, marker)
    assert laptop.inbox.all(Stored) == []
    await _sees(phone, marker)
    assert _sent(phone) == []


async def test_the_second_device_learns_what_the_first_one_read_and_took_back(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, laptop, other = await alice.device(), await alice.device(), await bob.device()
    question, answer = bob.text_to(alice, "have you read this?"), alice.text_to(bob, "a secret")
    await other.send_until_stored(question)
    mine = [
        about(alice.user_id, MsgType.READ, [question.msg_id], to=bob.user_id),
        answer,
        about(alice.user_id, MsgType.RECALL, [answer.msg_id], to=bob.user_id),
    ]

    for message in mine:
        await phone.send_until_stored(message)

    await _sees_copy(laptop, mine[-1])
    assert [copy.envelope for copy in _sent(laptop)] == mine


@pytest.mark.proves(ErrorCode.USER_UNKNOWN, ErrorCode.MSG_ID_UNKNOWN)
@not_on_openfire("a copy for the sender's other devices is made before the store has seen the message")
async def test_what_the_store_refuses_is_not_copied(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, laptop = await alice.device(), await alice.device()
    to_nobody = text_message(alice.user_id, "nobody-of-that-name", "into the void")
    recall = about(alice.user_id, MsgType.RECALL, ["no-such-message"], to=bob.user_id)

    codes = []
    for message in (to_nobody, recall):
        phone.send(message)
        codes.append((await phone.expect(Refused)).code)
    last = alice.text_to(bob, "stored")
    await phone.send_until_stored(last)

    assert codes == [ErrorCode.USER_UNKNOWN, ErrorCode.MSG_ID_UNKNOWN]
    await _sees_copy(laptop, last)
    assert [copy.envelope for copy in _sent(laptop)] == [last]


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

    phone.send_body(raw_envelope(alice, bob, body=[]), bob.entrance)
    refused = await phone.expect(Refused)
    message = alice.text_to(bob, "stored")
    await phone.send_until_stored(message)
    await _sees_copy(laptop, message)

    assert refused.code is ErrorCode.BODY_EMPTY
    marker = bob.text_to(alice, "behind all that")
    await (await bob.device()).send_until_stored(marker)
    await _sees(laptop, marker)
    assert laptop.inbox.all(Stored) == []
    assert laptop.inbox.all(Refused) == []
    copies_of_received = [copy.message for copy in laptop.inbox.all(Carbon) if not copy.sent]
    assert all(isinstance(message, Delivered) for message in copies_of_received)

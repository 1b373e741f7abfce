"""Two senders at once: the messages of each stay in the order in which they were sent, and all people see one order."""

import pytest
from tlim_client.inbox import Delivered, Stored
from tlim_client.xmpp import XmppClient

from tests.e2e.clients.people import People, Person, next_delivered

MESSAGES = 60


def _send_all(senders: list[tuple[XmppClient, Person]], receiver: Person) -> dict[str, list[str]]:
    sent: dict[str, list[str]] = {person.user_id: [] for _, person in senders}
    for number in range(MESSAGES):
        for device, person in senders:
            message = person.text_to(receiver, f"number {number}")
            device.send(message)
            sent[person.user_id].append(message.msg_id)
    return sent


def _order_of(delivered: list[Delivered], sender: Person) -> list[str]:
    return [event.envelope.msg_id for event in delivered if event.envelope.msg_from == sender.user_id]


@pytest.mark.proves("promise order")
async def test_two_senders_interleaved_keep_their_order(people: People) -> None:
    alice, carol, bob = await people("alice", "carol", "bob")
    receiver = await bob.device()
    senders = [(await alice.device(), alice), (await carol.device(), carol)]

    sent = _send_all(senders, bob)
    delivered = [await next_delivered(receiver) for _ in range(2 * MESSAGES)]

    for person in (alice, carol):
        assert _order_of(delivered, person) == sent[person.user_id]
        seqs = [event.seq or 0 for event in delivered if event.envelope.msg_from == person.user_id]
        assert seqs == sorted(seqs)


@pytest.mark.proves("promise order")
async def test_both_sides_of_one_conversation_writing_at_once_agree_on_its_order(people: People) -> None:
    alice, bob = await people("alice", "bob")
    one, other = await alice.device(), await bob.device()

    for number in range(MESSAGES):
        one.send(alice.text_to(bob, f"a{number}"))
        other.send(bob.text_to(alice, f"b{number}"))
    confirmed = [await device.expect(Stored) for device in (one, other) for _ in range(MESSAGES)]
    delivered = {
        person.user_id: [await next_delivered(device) for _ in range(MESSAGES)]
        for device, person in ((other, alice), (one, bob))
    }

    history = await (await alice.http()).history(bob.user_id, after=0)
    assert [message["seq"] for message in history] == sorted(stored.seq for stored in confirmed)
    for person, prefix in ((alice, "a"), (bob, "b")):
        texts = [message["body"][0]["text"] for message in history if message["from"] == person.user_id]
        assert texts == [f"{prefix}{number}" for number in range(MESSAGES)]
        assert [event.envelope.body[0]["text"] for event in delivered[person.user_id]] == texts

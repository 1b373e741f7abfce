"""The receiver is away: what is sent meanwhile comes when they come, in order."""

from dataclasses import replace

import pytest
from tlim_client import connection
from tlim_client.inbox import CaughtUp, Delivered
from tlim_client.xmpp import XmppClient

from tests.e2e.clients.network import network_to
from tests.e2e.clients.people import People, next_delivered, server_of
from tests.e2e.conftest import not_on_openfire


@pytest.mark.proves("promise order", "promise missed")
async def test_who_was_away_gets_everything_in_order_when_he_comes(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone = await alice.device()
    sent = [alice.text_to(bob, f"number {number}") for number in range(5)]

    stored = [await phone.send_until_stored(message) for message in sent]
    receiver = await bob.device()

    delivered = [await next_delivered(receiver) for _ in sent]
    assert [event.envelope for event in delivered] == sent
    assert [event.seq for event in delivered] == [one.seq for one in stored]
    assert all(event.delayed for event in delivered)


@pytest.mark.proves("promise missed")
@not_on_openfire("it does not say where what was missed ends")
async def test_the_end_of_what_was_missed_stands_before_what_is_new(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone = await alice.device()
    missed, live = alice.text_to(bob, "missed"), alice.text_to(bob, "live")

    stored = await phone.send_until_stored(missed)
    receiver = await bob.device()
    end = await receiver.expect(CaughtUp)
    before_it = [event.envelope for event in receiver.inbox.all(Delivered)]
    await phone.send_until_stored(live)
    await receiver.expect(Delivered, lambda event: event.envelope == live)
    later, _ = await (await bob.http()).sync(after=end.seq)

    assert before_it == [missed]
    assert (end.seq >= stored.seq, end.more) == (True, False)
    assert [item["msg_id"] for item in later] == [live.msg_id]


async def test_who_leaves_and_comes_back_gets_only_what_he_has_not_had(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    before, meanwhile, after = (alice.text_to(bob, text) for text in ("before", "meanwhile", "after"))

    await phone.send_until_stored(before)
    await next_delivered(receiver)
    await receiver.close()
    await phone.send_until_stored(meanwhile)
    back = await bob.device()
    waited = await next_delivered(back)
    await phone.send_until_stored(after)
    live = await next_delivered(back)

    assert (waited.envelope, live.envelope) == (meanwhile, after)
    assert len(back.inbox.all(Delivered)) == 2
    history = await (await bob.http()).history(alice.user_id, after=0)
    assert [message["msg_id"] for message in history] == [one.msg_id for one in (before, meanwhile, after)]


async def test_a_connection_that_breaks_without_a_word_loses_nothing(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    sent = [alice.text_to(bob, f"number {number}") for number in range(3)]

    receiver.break_connection()
    for message in sent:
        await phone.send_until_stored(message)

    delivered = [await next_delivered(receiver) for _ in sent]
    assert [event.envelope for event in delivered] == sent


async def test_a_device_notices_a_network_that_fell_silent_and_loses_nothing(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", replace(connection.PATIENCE, idle=0.5))
    monkeypatch.setattr(connection, "PING_SECONDS", 0.5)
    alice, bob = await people("alice", "bob")
    phone, at = await alice.device(), bob.stack.addresses
    sent = [alice.text_to(bob, f"number {number}") for number in range(3)]

    async with network_to(at.xmpp_host, at.xmpp_port) as (network, port):
        server = replace(server_of(bob.stack), host="127.0.0.1", port=port)
        async with XmppClient(server, bob.user_id, bob.password) as receiver:
            network.fall_silent()
            for message in sent:
                await phone.send_until_stored(message)
            delivered = [await next_delivered(receiver) for _ in sent]

    assert [event.envelope for event in delivered] == sent

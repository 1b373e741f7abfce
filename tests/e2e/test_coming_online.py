"""The receiver logs in while messages to them are on their way: none is lost, and none overtakes another."""

import asyncio

from tlim_client.xmpp import XmppClient

from tests.e2e.clients.people import People, Person, next_delivered

LOGINS = 10
AFTERWARDS = 5
"""Messages sent once he is there, so that some are live."""


async def _write_until(online: asyncio.Event, alice: Person, phone: XmppClient, bob: Person) -> list[str]:
    sent: list[str] = []
    left = AFTERWARDS
    while left:
        message = alice.text_to(bob, f"number {len(sent)}")
        await phone.send_until_stored(message)
        sent.append(message.msg_id)
        left -= online.is_set()
    return sent


async def test_who_comes_online_amid_a_flow_gets_all_of_it_in_order(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone = await alice.device()
    had: set[str] = set()  # receivers drop repeated messages: a device that left had not confirmed its last ones
    for _ in range(LOGINS):
        online = asyncio.Event()
        writing = asyncio.create_task(_write_until(online, alice, phone, bob))

        receiver = await bob.device()
        online.set()
        sent = await writing

        news: list[str] = []
        while len(news) < len(sent):
            msg_id = (await next_delivered(receiver)).envelope.msg_id
            if msg_id not in had:
                had.add(msg_id)
                news.append(msg_id)
        assert news == sent
        await receiver.close()

"""A web client connects over WebSocket (RFC 7395) and talks with a phone."""

from tlim_client.inbox import Delivered, Stored

from tests.e2e.clients.people import People, next_delivered
from tests.e2e.clients.websocket import WebDevice


async def test_a_web_client_and_a_phone_talk(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone = await bob.device()
    question, answer = alice.text_to(bob, "你好 from the <web>"), bob.text_to(alice, "hello, web")

    async with WebDevice.of(alice) as web:
        await web.send(question, "s1")
        stored = await web.receive()
        assert isinstance(stored, Stored)
        assert stored.msg_id == question.msg_id
        assert (await next_delivered(phone)).envelope == question

        await phone.send_until_stored(answer)
        delivered = await web.receive()
        assert isinstance(delivered, Delivered)
        assert delivered.envelope == answer

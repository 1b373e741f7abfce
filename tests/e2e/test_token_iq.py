"""A client that is logged in over XMPP gets a token without a password (docs/wire-protocol.md, "Modern HTTP")."""

import asyncio

import pytest
from tlim_client.failures import ClientError
from tlim_client.http import HttpClient

from tests.e2e.clients.people import People, next_delivered

MORE_THAN_ALLOWED = 21
"""TLIM_TOKEN_ATTEMPTS_PER_USER is 10 a minute. Two bridges may each let as many through in the same moment."""


@pytest.mark.proves("xmpp token")
async def test_a_token_asked_for_over_xmpp_opens_the_http_api(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message = alice.text_to(bob, "hello")
    await phone.send_until_stored(message)
    await next_delivered(receiver)

    token = await receiver.fetch_token()

    async with HttpClient(bob.stack.addresses.gateway, token=token) as http:
        history = await http.history(alice.user_id, after=0)
    assert [stored["msg_id"] for stored in history] == [message.msg_id]


async def test_who_asks_too_often_is_told_to_wait(people: People) -> None:
    (alice,) = await people("alice")
    phone = await alice.device()
    asked = [phone.fetch_token() for _ in range(MORE_THAN_ALLOWED)]
    with pytest.raises(ClientError, match="resource-constraint"):
        await asyncio.gather(*asked)


async def test_the_bridge_says_that_it_gives_tokens(people: People) -> None:
    (alice,) = await people("alice")
    phone = await alice.device()
    assert f"{phone.server.domain}#token" in await phone.features_of(alice.stack.addresses.component)

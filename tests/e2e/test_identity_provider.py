"""People and systems use tokens of the company's own identity provider (TLIM_EXTERNAL_ISSUERS)."""

import time
from typing import Any

import pytest
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People
from tests.e2e.clients.provider import ADMIN_SCOPE, IdentityProvider


async def test_a_token_of_the_provider_opens_what_is_his_and_no_more(
    people: People, stack: Stack, provider: IdentityProvider
) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    message = alice.text_to(bob, "hello")
    await (await alice.device()).send_until_stored(message)

    read = {}
    for person in (bob, carol):
        async with HttpClient(stack.addresses.gateway, token=provider.token(person.user_id)) as http:
            read[person] = [one["msg_id"] for one in await http.history(alice.user_id, after=0)]
            # each service checks tokens by itself
            assert [item async for item in http.pages("/v1/sessions")] == []
            assert (await http.call("GET", "/v1/files/usage"))["files"] == 0
            with pytest.raises(RefusedError) as refusal:
                await http.call("GET", "/v1/users")
            assert (refusal.value.status, refusal.value.code) == (403, ErrorCode.NOT_ALLOWED)

    assert read == {bob: [message.msg_id], carol: []}


async def test_with_the_scope_that_was_agreed_on_it_is_an_administrators(
    people: People, stack: Stack, provider: IdentityProvider
) -> None:
    (bob,) = await people("bob")
    token = provider.token("erp", scope=f"openid {ADMIN_SCOPE}")
    async with HttpClient(stack.addresses.gateway, token=token) as http:
        users = [user["user_id"] async for user in http.pages("/v1/users", prefix=bob.user_id)]
        message = {
            "from": "system",
            "to": bob.user_id,
            "msg_type": MsgType.TEXT,
            "body": [{"text": "invoice 7 is paid"}],
        }
        sent = await http.call("POST", "/v1/messages", json=message)
    assert users == [bob.user_id]
    assert [one["msg_id"] for one in await (await bob.http()).history("system", after=0)] == [sent["msg_id"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another application"},
        {"iss": "https://id.example.com"},
        {"exp": int(time.time()) - 3600},
        {"scope": "admin", "iss": "tlim", "aud": "tlim"},  # ours, signed by somebody else
    ],
)
async def test_what_it_signed_for_others_counts_nothing(
    people: People, stack: Stack, provider: IdentityProvider, changes: dict[str, Any]
) -> None:
    (alice,) = await people("alice")
    async with HttpClient(stack.addresses.gateway, token=provider.token(alice.user_id, **changes)) as http:
        for path in ("/v1/sessions", "/v1/files/usage", "/v1/conversations"):
            with pytest.raises(RefusedError) as refusal:
                await http.call("GET", path)
            assert refusal.value.status == 401
        with pytest.raises(RefusedError) as refusal:
            await http.call("POST", "/v1/messages", json={"from": "system", "to": alice.user_id})
        assert refusal.value.status == 401

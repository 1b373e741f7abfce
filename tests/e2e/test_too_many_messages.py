"""A user who sends too fast gets error-017 for a while, and other users are not affected."""

import pytest
from tlim_client.inbox import Refused
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People, next_delivered

FLOOD = 3_600
"""Well over what a user may send at once (TLIM_MESSAGES_PER_USER), with what the time of sending adds to it."""


@pytest.mark.proves(ErrorCode.TOO_MANY_REQUESTS)
async def test_who_floods_hears_error_017_and_others_go_on(people: People) -> None:
    mallory, alice, bob = await people("mallory", "alice", "bob")
    flooding, phone, receiver = await mallory.device(), await alice.device(), await bob.device()

    for _ in range(FLOOD):
        flooding.send_body("nonsense", bob.entrance)
    refused = await flooding.expect(Refused, lambda refusal: refusal.code is ErrorCode.TOO_MANY_REQUESTS, within=60)
    assert refused.body == ErrorCode.TOO_MANY_REQUESTS.value

    await phone.send_until_stored(alice.text_to(bob, "undisturbed"))
    assert (await next_delivered(receiver)).envelope.msg_from == alice.user_id

    await flooding.send_until_stored(mallory.text_to(bob, "later, when there is room again"))
    assert (await next_delivered(receiver)).envelope.msg_from == mallory.user_id

"""A user who sends too fast gets error-017 for a while, and other users are not affected."""

import pytest
from tlim_client.inbox import Refused
from tlim_client.xmpp import XmppClient
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.people import People, next_delivered

FLOOD = 3_600
"""Over what a user may send at once (TLIM_MESSAGES_PER_USER), with what 12 seconds add to it."""
FLOODS = 4
"""If the bridge takes longer than that for a flood, it takes several: each leaves less of the rate to the next one."""


async def refused_in_a_flood(device: XmppClient, to: str) -> Refused | None:
    """Send a flood. Return the first refusal with error-017, or None if the bridge has answered all without it."""
    for _ in range(FLOOD):
        device.send_body("nonsense", to)
    for _ in range(FLOOD):
        refused = await device.expect(Refused, within=60)
        if refused.code is ErrorCode.TOO_MANY_REQUESTS:
            return refused
    return None


@pytest.mark.proves(ErrorCode.TOO_MANY_REQUESTS)
async def test_who_floods_hears_error_017_and_others_go_on(people: People) -> None:
    mallory, alice, bob = await people("mallory", "alice", "bob")
    flooding, phone, receiver = await mallory.device(), await alice.device(), await bob.device()

    refused = None
    for _ in range(FLOODS):
        refused = refused or await refused_in_a_flood(flooding, bob.entrance)
    assert refused is not None
    assert refused.body == ErrorCode.TOO_MANY_REQUESTS.value

    await phone.send_until_stored(alice.text_to(bob, "undisturbed"))
    assert (await next_delivered(receiver)).envelope.msg_from == alice.user_id

    await flooding.send_until_stored(mallory.text_to(bob, "later, when there is room again"))
    assert (await next_delivered(receiver)).envelope.msg_from == mallory.user_id

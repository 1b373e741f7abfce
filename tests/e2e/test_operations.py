"""What an operator sees over HTTP: all instances, the way of a message, and what could not be processed."""

import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_client.failures import RefusedError
from tlim_devstack.services import SERVICES
from tlim_protocol.errors import ErrorCode
from tlim_runtime.trail import Passed

from tests.e2e.clients.people import People, next_delivered


@pytest.mark.proves("GET /v1/operations", "GET /v1/operations/messages/{msg_id}")
async def test_an_operator_follows_a_message_through_every_service(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    sent = alice.text_to(bob, "follow me")
    await phone.send_until_stored(sent)
    await next_delivered(receiver)

    async for attempt in AsyncRetrying(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True):
        with attempt:
            way = await people.admin.call("GET", f"/v1/operations/messages/{sent.msg_id}")
            steps = {(step["step"], step["service"]) for step in way["steps"]}
            assert steps == {
                (Passed.READ, "message-store"),
                (Passed.ACCEPTED, "xmpp-bridge"),
                (Passed.FETCHED, "message-store"),
                (Passed.COMMITTED, "message-store"),
                (Passed.PUBLISHED, "message-store"),
                (Passed.DELIVERED, "xmpp-bridge"),
            }
    assert [(row["sender"], row["msg_type"]) for row in way["rows"]] == [(alice.user_id, sent.msg_type)]
    assert "follow me" not in str(way)
    async for attempt in AsyncRetrying(stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True):
        with attempt:
            seen = await people.admin.call("GET", "/v1/operations")
            assert {report["service"] for report in seen["reports"]} == set(SERVICES)


@pytest.mark.proves("GET /v1/operations/dead-letters", "POST /v1/operations/dead-letters/{seq}/redrive")
async def test_only_an_operator_sees_dead_letters_and_an_unknown_one_cannot_be_sent_again(people: People) -> None:
    (alice,) = await people("alice")
    page = await people.admin.call("GET", "/v1/operations/dead-letters")
    assert {"items", "next_before"} == page.keys()
    with pytest.raises(RefusedError) as refusal:
        await people.admin.call("POST", "/v1/operations/dead-letters/999999999/redrive")
    assert refusal.value.code is ErrorCode.MSG_ID_UNKNOWN
    with pytest.raises(RefusedError) as refusal:
        await (await alice.http()).call("GET", "/v1/operations/dead-letters")
    assert refusal.value.code is ErrorCode.NOT_ALLOWED

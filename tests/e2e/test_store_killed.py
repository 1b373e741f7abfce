"""The message store is killed while messages flow: nothing acknowledged is lost, nothing is stored twice."""

import asyncio

import pytest
from tlim_client.inbox import Stored
from tlim_devstack.stack import Stack

from tests.e2e.clients.flow import Flow, assert_all_kept
from tests.e2e.clients.people import People, ids_in_history, next_delivered


@pytest.mark.proves("promise kept", "promise once")
async def test_killed_store_loses_and_doubles_nothing(people: People, disturbed_stack: Stack) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(lambda: disturbed_stack.kill("message-store"))

    await assert_all_kept(flow, alice, bob, receiver)


@pytest.mark.proves("promise stored", "promise kept")
async def test_what_was_taken_over_while_the_store_was_away_is_stored_when_it_is_back(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    sent = [alice.text_to(bob, f"number {number}") for number in range(30)]

    await asyncio.to_thread(disturbed_stack.stop_service, "message-store")
    for message in sent:
        phone.send(message)
    await asyncio.to_thread(disturbed_stack.start_service, "message-store")
    stored = [await phone.expect(Stored) for _ in sent]
    delivered = [await next_delivered(receiver) for _ in sent]

    assert [one.msg_id for one in stored] == [message.msg_id for message in sent]
    assert [event.envelope for event in delivered] == sent
    assert await ids_in_history(await bob.http(), alice) == [message.msg_id for message in sent]


async def test_store_killed_again_and_again_still_loses_and_doubles_nothing(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(*[lambda: disturbed_stack.kill("message-store")] * 3)

    await assert_all_kept(flow, alice, bob, receiver)

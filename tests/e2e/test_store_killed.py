"""The message store is killed while messages flow: nothing acknowledged is lost, nothing is stored twice."""

import asyncio

from tlim_devstack.stack import Stack

from tests.e2e.clients.flow import Flow, assert_all_kept
from tests.e2e.clients.people import People


async def test_killed_store_loses_and_doubles_nothing(people: People, disturbed_stack: Stack) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob, 200), await bob.device()

    await flow.disturbed_by(lambda: disturbed_stack.kill("message-store"))

    await assert_all_kept(flow, alice, bob, receiver)


async def test_what_was_taken_over_while_the_store_was_away_is_stored_when_it_is_back(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    flow = Flow(alice, phone, bob, 30)
    disturbed_stack.stop_service("message-store")

    async with asyncio.TaskGroup() as group:
        group.create_task(flow.run())
        await asyncio.to_thread(disturbed_stack.start_service, "message-store")

    await assert_all_kept(flow, alice, bob, receiver)

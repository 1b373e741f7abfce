"""The bridge is killed while messages flow: nothing acknowledged is lost, nothing is stored twice."""

import pytest
from tlim_devstack.stack import Stack

from tests.e2e.clients.flow import Flow, assert_all_kept
from tests.e2e.clients.people import People


@pytest.mark.proves("promise kept", "promise once")
async def test_killed_bridge_loses_and_doubles_nothing(people: People, disturbed_stack: Stack) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(lambda: disturbed_stack.kill("xmpp-bridge"))

    await assert_all_kept(flow, alice, bob, receiver)

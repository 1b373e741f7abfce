"""NATS, PostgreSQL or the XMPP server goes away while messages flow, and comes back: the system goes on by itself."""

import asyncio
from collections.abc import Callable

import pytest
from tlim_devstack.stack import Stack

from tests.e2e.clients.flow import Flow, assert_all_kept
from tests.e2e.clients.people import People

WAYS: dict[str, Callable[[Stack, str], None]] = {"killed": Stack.kill, "restarted": Stack.restart}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", ["nats", "postgres"])
async def test_messages_flow_on_after_a_server_was_away(
    people: People, disturbed_stack: Stack, server: str, way: str
) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(lambda: WAYS[way](disturbed_stack, server))

    await assert_all_kept(flow, alice, bob, receiver)


async def test_http_answers_again_after_postgresql_was_away(people: People, disturbed_stack: Stack) -> None:
    alice, bob = await people("alice", "bob")
    client = await alice.http()
    before = await client.add_session([bob.user_id])

    await asyncio.to_thread(disturbed_stack.restart, "postgres")
    for name in ("session-api", "message-store", "file-api"):
        await asyncio.to_thread(disturbed_stack.wait_ready, name)

    after = await client.add_session([bob.user_id])
    assert [one["session_id"] for one in await client.sessions()] == [after["session_id"], before["session_id"]]
    assert await client.history(bob.user_id) == []

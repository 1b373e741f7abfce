"""In containers: each of them is killed, stopped and paused under load, and everything goes on by itself."""

import asyncio
import time
from functools import partial

import pytest
from tlim_client.http import HttpClient
from tlim_devstack.services import BRIDGE, GATEWAY, SERVICES
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until

from tests.e2e.clients.containers import ComposeStack
from tests.e2e.clients.flow import Flow, assert_all_delivered
from tests.e2e.clients.people import People
from tests.e2e.conftest import IN_CLUSTER, IN_CONTAINERS

pytestmark = pytest.mark.skipif(IN_CLUSTER or not IN_CONTAINERS, reason="needs containers: make e2e-compose")

OTHERS = tuple(service for service in SERVICES if service != BRIDGE)
PAUSE_S = 10
"""Longer than any of our services waits for an answer of another."""
PATIENCE_S = 300
"""A busy machine takes its time to start a container and to look at its health."""


@pytest.fixture
def containers(disturbed_stack: Stack) -> ComposeStack:
    assert isinstance(disturbed_stack, ComposeStack)
    return disturbed_stack


@pytest.mark.parametrize("parts", [("nats", "postgres", "s3"), ("ejabberd", BRIDGE, GATEWAY), OTHERS])
async def test_messages_flow_on_whatever_container_is_killed_restarted_or_paused(
    people: People, containers: ComposeStack, parts: tuple[str, ...]
) -> None:
    alice, bob = await people("alice", "bob")
    if "ejabberd" in parts:  # so that it has written the new accounts to its disk
        await asyncio.to_thread(containers.restart, "ejabberd")
    flow, receiver = Flow(alice, await alice.device(), bob, PATIENCE_S), await bob.device()

    def kill(part: str) -> None:
        containers.kill(part)
        containers.wait_ready(part)

    def pause(part: str) -> None:
        end = time.monotonic() + PAUSE_S
        with containers.paused(part):
            wait_until(lambda: time.monotonic() > end, "the end of the pause", PAUSE_S + 1)
        containers.wait_ready(part)

    await flow.disturbed_by(*(partial(do, part) for part in parts for do in (kill, containers.restart, pause)))

    # In any order: a message that ejabberd kept for Bob may come before those that it lost and gets again.
    await assert_all_delivered(flow, bob, alice, receiver)
    await _all_answer(await alice.http(), bob.user_id)


async def _all_answer(client: HttpClient, peer: str) -> None:
    """Assert that each service answers again."""
    session = await client.add_session([peer])
    file_id = (await client.ask("POST", "/v1/files", content=b"a note")).json()["file_id"]

    assert [one["session_id"] for one in await client.sessions()] == [session["session_id"]]
    assert (await client.ask("GET", f"/v1/files/{file_id}")).content == b"a note"
    assert await client.history(peer, after=0)

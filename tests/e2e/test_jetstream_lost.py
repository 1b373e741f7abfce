"""All of JetStream is lost while people write, and the operator has it filled again from PostgreSQL."""

import json
import shutil
from typing import cast

import pytest
from tlim_client.inbox import Delivered
from tlim_devstack.stack import Stack

from tests.e2e.clients.containers import ComposeStack
from tests.e2e.clients.flow import Flow, assert_all_kept
from tests.e2e.clients.operator import Operator
from tests.e2e.clients.people import People
from tests.e2e.conftest import IN_CONTAINERS


@pytest.mark.proves("promise kept", "promise order")
async def test_when_jetstream_is_lost_under_load_nothing_confirmed_is_missing(
    people: People, disturbed_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stack = disturbed_stack
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()
    operator = Operator(tmp_path_factory.mktemp("operator"), stack)

    def lose_jetstream() -> None:
        if IN_CONTAINERS:
            cast("ComposeStack", stack).lose("nats")
        else:
            stack.stop_service("nats")
            shutil.rmtree(stack.home / "nats" / "data" / "jetstream")
            stack.start_service("nats")
        assert len(json.loads(operator.run("replay", "--json"))["ready"]) == 2

    await flow.disturbed_by(lose_jetstream)

    await assert_all_kept(flow, alice, bob, receiver)
    session = await (await alice.http()).add_session([bob.user_id])
    notice = await receiver.expect(Delivered, lambda event: event.envelope.msg_id.startswith(session["session_id"]))
    assert notice.envelope.msg_type.value == "HTS-000"


async def test_search_finds_everything_again_after_its_index_was_rebuilt(
    people: People, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alice, bob = await people("alice", "bob")
    phone, reader = await alice.device(), await bob.http()
    message = alice.text_to(bob, "quarterly cucumbers")
    await phone.send_until_stored(message)

    Operator(tmp_path_factory.mktemp("operator"), stack).run("rebuild")

    assert [found["msg_id"] for found in await reader.search("cucumbers")] == [message.msg_id]

"""A server stops while people work, and comes back: the system goes on by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from tlim_client.failures import RefusedError
from tlim_client.inbox import Delivered
from tlim_devstack.stack import Stack
from tlim_protocol.errors import ErrorCode

from tests.e2e.clients.flow import Flow, assert_all_delivered, assert_all_kept, kill_and_wait
from tests.e2e.clients.people import People, Person, ids_in_history
from tests.e2e.conftest import not_on_openfire

WAYS: dict[str, Callable[[Stack, str], None]] = {
    "killed": lambda stack, name: stack.kill(name),
    "restarted": lambda stack, name: stack.restart(name),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("server", ["nats", "postgres"])
@pytest.mark.proves("promise kept", "promise order")
async def test_messages_flow_on_after_a_server_was_away(
    people: People, disturbed_stack: Stack, server: str, way: str
) -> None:
    alice, bob = await people("alice", "bob")
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(lambda: WAYS[way](disturbed_stack, server))

    await assert_all_kept(flow, alice, bob, receiver)


@not_on_openfire("messages that arrive while somebody logs in can be missing over XMPP")
@pytest.mark.parametrize("way", WAYS)
async def test_messages_flow_on_after_the_xmpp_server_was_away(
    people: People, disturbed_stack: Stack, way: str
) -> None:
    alice, bob = await _with_lasting_accounts(people("alice", "bob"), disturbed_stack)
    flow, receiver = Flow(alice, await alice.device(), bob), await bob.device()

    await flow.disturbed_by(lambda: WAYS[way](disturbed_stack, disturbed_stack.xmpp_name))

    # In any order: a message that the server kept for Bob may come before those that it lost and gets again.
    await assert_all_delivered(flow, bob, alice, receiver)


@not_on_openfire("a message to a component that is away disappears without an error")
async def test_who_was_away_when_the_xmpp_server_was_killed_gets_everything_all_the_same(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await _with_lasting_accounts(people("alice", "bob"), disturbed_stack)
    phone, reader = await alice.device(), await bob.http()
    sent = [alice.text_to(bob, f"number {number}") for number in range(20)]
    for message in sent:
        await phone.send_until_stored(message)
    await phone.close()

    await asyncio.to_thread(kill_and_wait, disturbed_stack, disturbed_stack.xmpp_name)

    ids = [message.msg_id for message in sent]
    synced, _ = await reader.sync()
    assert [item["msg_id"] for item in synced] == ids
    assert await ids_in_history(reader, alice) == ids
    device = await bob.device()
    await device.expect(Delivered, lambda event: event.envelope == sent[-1])
    assert list(dict.fromkeys(event.envelope.msg_id for event in device.inbox.all(Delivered))) == ids


async def _with_lasting_accounts(people: Awaitable[Sequence[Person]], stack: Stack) -> Sequence[Person]:
    """Return people whose accounts are on disk: ejabberd writes new accounts some time later, and would lose them."""
    known = await people
    await asyncio.to_thread(stack.restart, stack.xmpp_name)
    return known


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


async def test_files_come_and_go_again_after_s3_was_away(
    people: People, disturbed_stack: Stack, tmp_path: Path
) -> None:
    (alice,) = await people("alice")
    client = await alice.http()
    source = tmp_path / "notes.txt"
    source.write_text("kept")
    kept = await client.upload(source)

    await asyncio.to_thread(disturbed_stack.stop_service, "s3")
    with pytest.raises(RefusedError) as refusal:
        await client.upload(source)
    await asyncio.to_thread(disturbed_stack.start_service, "s3")
    again = await client.upload(source)

    assert (refusal.value.status, refusal.value.code) == (503, ErrorCode.UNAVAILABLE)
    for file_id in (kept, again):
        assert (await client.download(file_id, tmp_path / file_id)).path.read_text() == "kept"

"""The list of conversations: the newest first, each with its number of unread messages."""

import pytest
from tlim_client.compose import about, group_message, receipt
from tlim_client.http import HttpClient
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People


async def unread(client: HttpClient) -> dict[str, int]:
    return {item["conversation"]: item["unread"] for item in await client.conversations()}


@pytest.mark.proves("GET /v1/conversations", MsgType.READ)
async def test_unread_goes_up_with_messages_and_down_with_reading_and_recall(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver, client = await alice.device(), await bob.device(), await bob.http()
    first, second, third = [alice.text_to(bob, f"number {n}") for n in range(3)]
    for message in (first, second, third):
        await phone.send_until_stored(message)
    assert await unread(client) == {alice.user_id: 3}

    await receiver.send_until_stored(receipt(bob.user_id, first, MsgType.RECEIVED))
    assert await unread(client) == {alice.user_id: 3}
    await receiver.send_until_stored(receipt(bob.user_id, first, MsgType.READ))
    assert await unread(client) == {alice.user_id: 2}
    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [second.msg_id], to=bob.user_id))
    assert await unread(client) == {alice.user_id: 1}
    await receiver.send_until_stored(receipt(bob.user_id, third, MsgType.READ))
    assert await unread(client) == {alice.user_id: 0}
    await receiver.send_until_stored(bob.text_to(alice, "an answer is not unread to its author"))
    assert await unread(client) == {alice.user_id: 0}
    assert await unread(await alice.http()) == {bob.user_id: 1}


@pytest.mark.proves("GET /v1/conversations")
async def test_people_and_sessions_are_listed_together_newest_first(people: People) -> None:
    alice, bob, carol = await people("Alice", "Bob", "Carol")
    phone, client = await alice.device(), await alice.http()

    def in_session(text: str) -> Envelope:
        return group_message(alice.user_id, session_id, MsgType.TEXT, {"text": text})

    session_id = (await client.add_session([bob.user_id]))["session_id"]
    await phone.send_until_stored(in_session("hi"))
    await phone.send_until_stored(alice.text_to(carol, "hello"))
    assert [item["conversation"] for item in await client.conversations()] == [carol.user_id, session_id]

    await phone.send_until_stored(in_session("again"))
    newest, other = await client.conversations()
    assert (newest["session_id"], newest["session_name"]) == (session_id, "Alice,Bob")
    assert newest["last"]["body"][0]["text"] == "again"
    assert (other["session_id"], other["conversation"], other["last"]["body"]) == (
        None, carol.user_id, [{"text": "hello"}],
    )  # fmt: skip


@pytest.mark.proves("GET /v1/conversations", "GET /v1/conversations/{conversation}/messages")
async def test_a_session_that_one_left_stays_as_it_was_and_whoever_comes_later_sees_only_later_messages(
    people: People,
) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, manager = await alice.device(), await alice.http()
    session_id = (await manager.add_session([bob.user_id]))["session_id"]
    await phone.send_until_stored(group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "bob's time"}))
    await manager.change_session(session_id, add=[carol.user_id], remove=[bob.user_id])
    await phone.send_until_stored(group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "carol's time"}))

    for person, left in ((bob, True), (carol, False)):
        client = await person.http()
        (session,) = await client.conversations()
        assert (session["left"], session["unread"]) == (left, 1)
        (seen,) = await client.history(session_id)
        assert seen["body"] == [{"session_id": session_id, "text": f"{person.user_id.partition('-')[0]}'s time"}]
        assert session["last"]["seq"] == seen["seq"]


@pytest.mark.proves("GET /v1/conversations", "GET /v1/sync")
async def test_a_new_device_shows_the_list_and_syncs_from_there(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, client = await alice.device(), await bob.http()
    await phone.send_until_stored(alice.text_to(bob, "old"))
    page = await client.call("GET", "/v1/conversations")
    assert [item["conversation"] for item in page["items"]] == [alice.user_id]

    new = await phone.send_until_stored(alice.text_to(bob, "new"))

    found, _ = await client.sync(page["sync_from"])
    assert [item["seq"] for item in found] == [new.seq]

"""Catching up: a device that was away asks what concerns it since a number, and misses nothing."""

import pytest
from tlim_client.compose import group_message
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People


@pytest.mark.proves("GET /v1/sync")
async def test_pages_follow_each_other_without_gap_or_repetition(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, client = await alice.device(), await bob.http()
    sent = [(await phone.send_until_stored(alice.text_to(bob, f"number {n}"))).seq for n in range(7)]

    page = await client.call("GET", "/v1/sync", params={"limit": 3})
    seqs = [item["seq"] for item in page["items"]]
    while page["more"]:
        page = await client.call("GET", "/v1/sync", params={"limit": 3, "after": page["next"]})
        seqs += [item["seq"] for item in page["items"]]

    assert seqs == sent
    late = await phone.send_until_stored(alice.text_to(bob, "one more"))
    assert [item["seq"] for item in (await client.sync(page["next"]))[0]] == [late.seq]


@pytest.mark.proves("GET /v1/sync", MsgType.SESSION_CHANGED)
async def test_who_was_removed_learns_that_and_nothing_that_comes_after(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, manager, client = await alice.device(), await alice.http(), await bob.http()
    session_id = (await manager.add_session([bob.user_id]))["session_id"]
    before = await phone.send_until_stored(group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "with bob"}))
    await manager.change_session(session_id, remove=[bob.user_id])
    await phone.send_until_stored(group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "without bob"}))

    (notice,), _ = await client.sync(before.seq)

    assert (notice["kind"], notice["msg_type"]) == ("notice", MsgType.SESSION_CHANGED)
    (seen,) = await client.history(session_id)
    assert seen["body"][0]["text"] == "with bob"

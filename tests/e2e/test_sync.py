"""Catching up: a device that was offline asks for everything after its cursor, and misses nothing."""

import asyncio

import pytest
from tlim_client.compose import about, group_message, receipt
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People

MESSAGES = 40


@pytest.mark.proves("GET /v1/sync", MsgType.RECALL, MsgType.SESSION_ADDED)
async def test_who_was_away_learns_everything_in_order_and_a_recalled_message_only_as_a_tombstone(
    people: People,
) -> None:
    alice, bob = await people("alice", "bob")
    phone, manager = await alice.device(), await alice.http()
    session_id = (await manager.add_session([bob.user_id]))["session_id"]
    secret = alice.text_to(bob, "not meant for you")
    await phone.send_until_stored(group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "hi all"}))
    await phone.send_until_stored(secret)
    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [secret.msg_id], to=bob.user_id))

    found, cursor = await (await bob.http()).sync()

    assert [(item["kind"], item["conversation"], item["from"]) for item in found] == [
        ("notice", session_id, alice.user_id),
        ("message", session_id, alice.user_id),
        ("message", alice.user_id, alice.user_id),
        ("recall", alice.user_id, alice.user_id),
    ]
    notice, said, tombstone, recall = found
    assert notice["msg_type"] == MsgType.SESSION_ADDED
    assert (said["body"][0]["text"], said["session_id"]) == ("hi all", session_id)
    assert (tombstone["msg_id"], tombstone["recalled"], tombstone["body"]) == (secret.msg_id, True, [])
    assert recall["body"] == [{"msg_id": secret.msg_id}]
    assert cursor == recall["seq"]


@pytest.mark.proves("GET /v1/sync", MsgType.READ)
async def test_another_device_of_mine_learns_what_i_sent_and_what_i_read(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, others = await alice.device(), await bob.device()
    question = bob.text_to(alice, "lunch?")
    await others.send_until_stored(question)
    await phone.send_until_stored(receipt(alice.user_id, question, MsgType.READ))
    await phone.send_until_stored(alice.text_to(bob, "yes"))

    found, _ = await (await alice.http()).sync()

    assert [(item["kind"], item["from"]) for item in found] == [
        ("message", bob.user_id), ("receipt", alice.user_id), ("message", alice.user_id),
    ]  # fmt: skip
    assert {item["conversation"] for item in found} == {bob.user_id}


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


@pytest.mark.proves("GET /v1/sync", "promise late")
async def test_who_syncs_while_several_people_write_skips_nothing(people: People) -> None:
    bob, *writers = await people("bob", "alice", "carol", "dave")
    client, devices = await bob.http(), [await writer.device() for writer in writers]

    async def write(number: int) -> None:
        for device, writer in zip(devices, writers, strict=True):
            await device.send_until_stored(writer.text_to(bob, f"number {number}"))

    seqs: list[int] = []
    writing = asyncio.gather(*map(write, range(MESSAGES)))
    while len(seqs) < MESSAGES * len(writers):
        all_is_stored = writing.done()
        found, _ = await client.sync(seqs[-1] if seqs else 0, limit=7)
        assert found or not all_is_stored, "something was skipped"
        seqs += [item["seq"] for item in found]
    await writing

    assert seqs == [item["seq"] for item in (await client.sync())[0]]


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

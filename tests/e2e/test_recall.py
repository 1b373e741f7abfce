"""Recall: for a short time an author can take a message back. Then nobody can read it any more, anywhere."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_client.compose import about, file_message, group_message
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered
from tlim_client.xmpp import XmppClient
from tlim_devstack.stack import Stack
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People, next_chat
from tests.e2e.conftest import RECALL_WINDOW_S, not_on_openfire


async def _is_recalled(device: XmppClient, message: Envelope) -> None:
    event = await device.expect(Delivered, lambda event: event.envelope.msg_type is MsgType.RECALL)
    assert (event.envelope.msg_from, event.envelope.body[0]["msg_id"]) == (message.msg_from, message.msg_id)


async def _only_a_tombstone_is_left(
    client: HttpClient, conversation: str, message: Envelope, *, later: Envelope
) -> None:
    """Assert that nobody reads it; `later`, with the same word in it, shows that the search has come that far."""
    (kept,) = [one for one in await client.history(conversation) if one["msg_id"] == message.msg_id]
    (synced,) = [one for one in (await client.sync())[0] if one["msg_id"] == message.msg_id]
    for seen in (kept, synced):
        assert (seen["recalled"], seen["body"]) == (True, [])
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(LookupError), wait=wait_fixed(0.1), stop=stop_after_delay(20), reraise=True
    ):
        with attempt:
            found = [one["msg_id"] for one in await client.search("secret")]
            if later.msg_id not in found:
                raise LookupError("the search is behind the log")
    assert found == [later.msg_id]


@pytest.mark.proves(MsgType.RECALL)
@pytest.mark.parametrize("how", ["the author left", "a reader left", "deleted"])
async def test_the_author_takes_back_what_was_said_in_a_session_that_is_over(people: People, how: str) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    client, reader = await alice.http(), await bob.http()
    session_id = (await client.add_session([bob.user_id]))["session_id"]
    message = group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "a secret"})
    await phone.send_until_stored(message)
    await next_chat(receiver)
    if how == "deleted":
        await client.delete_session(session_id)
    else:
        leaver = alice if how == "the author left" else bob
        await client.change_session(session_id, remove=[leaver.user_id])

    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [message.msg_id], session_id=session_id))

    await _is_recalled(receiver, message)
    for one in (client, reader):
        (kept,) = await one.history(session_id)
        assert (kept["msg_id"], kept["recalled"], kept["body"]) == (message.msg_id, True, [])
        assert (await one.sync())[0][-1]["msg_type"] == MsgType.RECALL


@pytest.mark.proves(MsgType.RECALL)
async def test_a_recalled_message_leaves_a_tombstone_and_everybody_hears_of_it_once(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message, later = alice.text_to(bob, "a secret for somebody else"), alice.text_to(bob, "sorry, it was a secret")
    await phone.send_until_stored(message)
    await next_chat(receiver)

    for _ in range(2):
        await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [message.msg_id], to=bob.user_id))
    await phone.send_until_stored(later)

    await _is_recalled(receiver, message)
    await next_chat(receiver)
    types = [event.envelope.msg_type for event in receiver.inbox.all(Delivered)]
    assert types == [MsgType.TEXT, MsgType.RECALL, MsgType.TEXT]
    for reader, peer in ((alice, bob), (bob, alice)):
        await _only_a_tombstone_is_left(await reader.http(), peer.user_id, message, later=later)


@pytest.mark.proves(MsgType.RECALL)
async def test_in_a_group_everybody_else_hears_of_it(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, others = await alice.device(), {bob: await bob.device(), carol: await carol.device()}
    session_id = (await (await alice.http()).add_session([bob.user_id, carol.user_id]))["session_id"]
    message, later = [
        group_message(alice.user_id, session_id, MsgType.TEXT, {"text": text})
        for text in ("a secret", "sorry, it was a secret")
    ]
    await phone.send_until_stored(message)

    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [message.msg_id], session_id=session_id))
    await phone.send_until_stored(later)

    for person, device in others.items():
        await _is_recalled(device, message)
        await _only_a_tombstone_is_left(await person.http(), session_id, message, later=later)


@pytest.mark.proves(MsgType.RECALL)
@not_on_openfire("a recall does not reach its offline storage")
async def test_who_comes_online_later_gets_the_recall_and_never_the_text(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone = await alice.device()
    message, last = alice.text_to(bob, "a secret"), alice.text_to(bob, "sorry, it was a secret")

    await phone.send_until_stored(message)
    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [message.msg_id], to=bob.user_id))
    await phone.send_until_stored(last)
    receiver = await bob.device()

    assert (await next_chat(receiver)).envelope == last
    assert [event.envelope.msg_type for event in receiver.inbox.all(Delivered)] == [MsgType.RECALL, MsgType.TEXT]
    await _only_a_tombstone_is_left(await bob.http(), alice.user_id, message, later=last)


@pytest.mark.proves(MsgType.RECALL, ErrorCode.FILE_UNKNOWN)
async def test_the_file_of_a_recalled_message_is_nobody_s_any_more(people: People, tmp_path: Path) -> None:
    alice, bob = await people("alice", "bob")
    phone, one, other = await alice.device(), await alice.http(), await bob.http()
    (tmp_path / "plan.txt").write_text("the plan")
    file_id = await one.upload(tmp_path / "plan.txt")
    message = file_message(alice.user_id, bob.user_id, MsgType.FILE, file_id)
    await phone.send_until_stored(message)
    await other.download(file_id, tmp_path / "his.txt")

    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [message.msg_id], to=bob.user_id))

    for reader in (other, one):
        with pytest.raises(RefusedError) as refusal:
            await reader.download(file_id, tmp_path / "again.txt")
        assert refusal.value.code is ErrorCode.FILE_UNKNOWN


@pytest.mark.proves(ErrorCode.RECALL_TOO_LATE, ErrorCode.NOT_ALLOWED, ErrorCode.MSG_ID_UNKNOWN)
async def test_only_the_author_recalls_only_within_the_window_and_only_what_is_there(
    people: People, stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    late, early, fresh = [alice.text_to(bob, name) for name in ("late", "early", "fresh")]
    for message in (late, early, fresh):
        await phone.send_until_stored(message)
    await _make_older(stack, late, RECALL_WINDOW_S + 1)
    await _make_older(stack, early, RECALL_WINDOW_S // 2)

    codes = {}
    for name, device, msg_ids in (
        ("not his", receiver, [fresh.msg_id]),
        ("not there", phone, ["no-such-message"]),
        ("late", phone, [late.msg_id]),
        ("one of them late", phone, [fresh.msg_id, late.msg_id]),
    ):
        me, other = (alice, bob) if device is phone else (bob, alice)
        with pytest.raises(RefusedError) as refusal:
            await device.send_until_stored(about(me.user_id, MsgType.RECALL, msg_ids, to=other.user_id))
        codes[name] = refusal.value.code
    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [early.msg_id], to=bob.user_id))

    assert codes == {
        "not his": ErrorCode.NOT_ALLOWED,
        "not there": ErrorCode.MSG_ID_UNKNOWN,
        "late": ErrorCode.RECALL_TOO_LATE,
        "one of them late": ErrorCode.RECALL_TOO_LATE,
    }
    history = await (await bob.http()).history(alice.user_id, after=0)
    assert [kept["recalled"] for kept in history] == [False, True, False]


async def _make_older(stack: Stack, message: Envelope, seconds: int) -> None:
    """Let time pass: the server compares its clock with when it stored the message."""
    engine = create_async_engine(stack.services.database("message-store", "message_store").url())
    async with engine.begin() as connection:
        sql = text("UPDATE messages SET stored_at = stored_at - :by WHERE msg_id = :msg_id")
        await connection.execute(sql, {"by": seconds * 1000, "msg_id": message.msg_id})
    await engine.dispose()

"""A recall of a message that is not delivered yet: receivers who come online later get the notice, never the text."""

import asyncio

import pytest
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_client.compose import about, group_message
from tlim_client.failures import RefusedError
from tlim_client.http import HttpClient
from tlim_client.inbox import Delivered, Refused
from tlim_client.xmpp import XmppClient
from tlim_devstack.stack import Stack
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import People, Person, next_chat
from tests.e2e.conftest import not_on_openfire


def _recall(author: Person, to: Person, *messages: Envelope) -> Envelope:
    return about(author.user_id, MsgType.RECALL, [message.msg_id for message in messages], to=to.user_id)


def _received(device: XmppClient, kind: MsgType) -> list[str]:
    return [event.envelope.msg_id for event in device.inbox.all(Delivered) if event.envelope.msg_type is kind]


async def _assert_only_the_notice(device: XmppClient, reader: Person, author: Person, recalled: Envelope) -> None:
    """Assert that the text is nowhere: not among what was delivered, not in history, not in sync."""
    assert recalled.msg_id not in _received(device, recalled.msg_type)
    http = await reader.http()
    history = await http.history(recalled.session_id or author.user_id, after=0)
    tombstone = next(message for message in history if message["msg_id"] == recalled.msg_id)
    assert (tombstone["recalled"], tombstone["body"]) == (True, [])
    entries, _ = await http.sync()
    assert not any(recalled.body[0]["text"] in str(entry) for entry in entries)


@pytest.mark.proves(MsgType.RECALL)
@not_on_openfire("a recall does not reach its offline storage")
async def test_who_was_away_gets_the_notice_and_never_the_text(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone = await alice.device()
    before, wrong, after = (alice.text_to(bob, text) for text in ("before", "an embarrassing mistake", "after"))
    for message in (before, wrong, after):
        await phone.send_until_stored(message)
    recall = _recall(alice, bob, wrong)
    await phone.send_until_stored(recall)

    receiver = await bob.device()

    arrived = [await receiver.expect(Delivered) for _ in range(3)]
    assert [event.envelope.msg_id for event in arrived] == [before.msg_id, after.msg_id, recall.msg_id]
    assert all(event.delayed for event in arrived)
    await _assert_only_the_notice(receiver, bob, alice, wrong)


@not_on_openfire("a recall does not reach its offline storage")
async def test_in_a_group_everybody_who_was_away_gets_the_notice_only(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, online = await alice.device(), await bob.device()
    session_id = str((await (await alice.http()).add_session([bob.user_id, carol.user_id]))["session_id"])
    wrong, right = (
        group_message(alice.user_id, session_id, MsgType.TEXT, {"text": text})
        for text in ("an embarrassing mistake", "what was meant")
    )
    await phone.send_until_stored(wrong)
    assert (await next_chat(online)).envelope == wrong
    await phone.send_until_stored(about(alice.user_id, MsgType.RECALL, [wrong.msg_id], session_id=session_id))
    await phone.send_until_stored(right)

    receiver = await carol.device()

    assert (await next_chat(receiver)).envelope == right
    for device in (receiver, online):
        notice = await device.expect(Delivered, lambda event: event.envelope.msg_type is MsgType.RECALL)
        assert notice.envelope.body == [{"session_id": session_id, "msg_id": wrong.msg_id}]
    await _assert_only_the_notice(receiver, carol, alice, wrong)


async def test_what_is_recalled_before_it_could_be_delivered_is_never_delivered(
    people: People, disturbed_stack: Stack
) -> None:
    alice, bob = await people("alice", "bob")
    phone, reader = await alice.device(), await alice.http()
    wrong, marker = alice.text_to(bob, "an embarrassing mistake"), alice.text_to(bob, "marker")
    recall = _recall(alice, bob, wrong)
    await asyncio.to_thread(disturbed_stack.stop_service, "message-store")
    for message in (wrong, recall):
        phone.send(message)
    phone.send_body("nonsense", bob.entrance)
    await phone.expect(Refused)  # which the bridge answers in order: it has taken the others over
    await asyncio.to_thread(disturbed_stack.stop_service, disturbed_stack.xmpp_name)
    await asyncio.to_thread(disturbed_stack.start_service, "message-store")
    await _is_recalled(reader, bob, wrong)
    await asyncio.to_thread(disturbed_stack.start_service, disturbed_stack.xmpp_name)

    receiver = await bob.device()
    await phone.send_until_stored(marker)

    assert (await next_chat(receiver)).envelope == marker
    assert await receiver.expect(Delivered, lambda event: event.envelope.msg_id == recall.msg_id)
    await _assert_only_the_notice(receiver, bob, alice, wrong)


async def _is_recalled(reader: HttpClient, peer: Person, recalled: Envelope) -> None:
    later = retry_if_exception_type((AssertionError, RefusedError))  # a cluster leads to new pods after a while only
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.1), retry=later, reraise=True):
        with attempt:
            history = await reader.history(peer.user_id, after=0)
            assert [(one["msg_id"], one["recalled"]) for one in history] == [(recalled.msg_id, True)]

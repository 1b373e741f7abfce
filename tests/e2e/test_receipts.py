"""Receipts: the author of a message learns who received and read it; in a group all members learn who read it."""

from collections.abc import Mapping
from typing import Any

import pytest
from tlim_client.compose import about, group_message, receipt, text_message
from tlim_client.failures import RefusedError
from tlim_client.inbox import Bounced, Delivered
from tlim_client.xmpp import XmppClient
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.people import People, next_chat
from tests.e2e.conftest import not_on_openfire

LARGE = 200
"""Up to so many people in a group all others hear who has read (TLIM_READ_TO_ALL of message-store)."""


async def _next_report(device: XmppClient) -> tuple[str, MsgType, list[str]]:
    """Return who reports what about which messages, in the next receipt that this device gets."""
    event = await device.expect(Delivered, lambda event: event.envelope.msg_type in {MsgType.RECEIVED, MsgType.READ})
    envelope = event.envelope
    return envelope.msg_from, envelope.msg_type, [element["msg_id"] for element in envelope.body]


@pytest.mark.proves(MsgType.RECEIVED, MsgType.READ)
async def test_the_author_hears_once_that_his_messages_were_received_and_read(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    sent = [alice.text_to(bob, f"number {number}") for number in range(3)]
    for message in sent:
        await phone.send_until_stored(message)
    ids = [(await next_chat(receiver)).envelope.msg_id for _ in sent]

    for kind in (MsgType.RECEIVED, MsgType.RECEIVED, MsgType.READ):
        await receiver.send_until_stored(about(bob.user_id, kind, ids, to=alice.user_id))
    await receiver.send_until_stored(receipt(bob.user_id, sent[0], MsgType.READ))
    await receiver.send_until_stored(bob.text_to(alice, "that was all"))

    assert await _next_report(phone) == (bob.user_id, MsgType.RECEIVED, ids)
    assert await _next_report(phone) == (bob.user_id, MsgType.READ, ids)
    await next_chat(phone)
    types = [event.envelope.msg_type for event in phone.inbox.all(Delivered)]
    assert types == [MsgType.RECEIVED, MsgType.READ, MsgType.TEXT]
    history = await (await alice.http()).history(bob.user_id, after=0)
    assert all(REGISTRY[MsgType(kept["msg_type"])].is_chat for kept in history)


@pytest.mark.proves(MsgType.RECEIVED, MsgType.READ)
async def test_in_a_group_only_the_author_hears_received_and_everybody_else_hears_read(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, bobs, carols = await alice.device(), await bob.device(), await carol.device()
    session_id = (await (await alice.http()).add_session([bob.user_id, carol.user_id]))["session_id"]
    message = group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "hi"})
    await phone.send_until_stored(message)

    await bobs.send_until_stored(receipt(bob.user_id, message))
    await bobs.send_until_stored(receipt(bob.user_id, message, MsgType.READ))

    assert await _next_report(phone) == (bob.user_id, MsgType.RECEIVED, [message.msg_id])
    for device in (phone, carols):
        assert await _next_report(device) == (bob.user_id, MsgType.READ, [message.msg_id])


@pytest.mark.proves(MsgType.READ, "GET /v1/sync")
async def test_in_a_large_group_only_the_author_hears_who_has_read_it(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, bobs, carols = await alice.device(), await bob.device(), await carol.device()
    client, others = await alice.http(), await people.known(LARGE)
    session_id = (await client.add_session([bob.user_id, carol.user_id, *others]))["session_id"]
    message = group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "hi"})
    await phone.send_until_stored(message)

    for reader, device in ((bob, bobs), (carol, carols)):
        await next_chat(device)
        await device.send_until_stored(receipt(reader.user_id, message, MsgType.READ))

    told: list[Mapping[str, Any]] = []
    while sum(element["readers_count"] for element in told) < 2:
        told += (await phone.expect(Delivered, lambda event: event.envelope.msg_type is MsgType.READ)).envelope.body
    names = [reader["user_id"] for element in told for reader in element["readers"]]
    assert sorted(names) == [bob.user_id, carol.user_id]
    assert {(element["session_id"], element["msg_id"]) for element in told} == {(session_id, message.msg_id)}
    assert (await client.message(message.msg_id))["read"] == 2
    found, _ = await client.sync()
    assert [element for item in found if item["kind"] == "receipt" for element in item["body"]] == told
    for reader, device in ((bob, bobs), (carol, carols)):
        await phone.send_until_stored(alice.text_to(reader, "that was all"))
        await next_chat(device)
        assert MsgType.READ not in {event.envelope.msg_type for event in device.inbox.all(Delivered)}


@not_on_openfire("receipts do not wait for an author who is away")
@pytest.mark.proves(MsgType.RECEIVED, MsgType.READ, "GET /v1/sync")
async def test_an_author_who_was_away_gets_the_receipts_in_order_and_finds_them_in_sync(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    message = alice.text_to(bob, "hi")
    await phone.send_until_stored(message)
    await next_chat(receiver)
    await phone.close()

    for kind in (MsgType.RECEIVED, MsgType.READ):
        await receiver.send_until_stored(receipt(bob.user_id, message, kind))
    await receiver.send_until_stored(bob.text_to(alice, "that was all"))

    later = await alice.device()
    missed = [(await later.expect(Delivered)).envelope.msg_type for _ in range(3)]
    assert missed == [MsgType.RECEIVED, MsgType.READ, MsgType.TEXT]
    found, _ = await (await alice.http()).sync()
    assert [item["msg_type"] for item in found if item["kind"] == "receipt"] == [MsgType.RECEIVED, MsgType.READ]
    await later.send_until_stored(alice.text_to(bob, "so you have read it"))
    await next_chat(receiver)
    assert not [event for event in receiver.inbox.history if isinstance(event, Bounced)]


@pytest.mark.proves(MsgType.READ)
@pytest.mark.parametrize("how", ["left", "deleted"])
async def test_unread_of_a_session_that_is_over_is_cleared_and_nobody_hears_of_it(people: People, how: str) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    client, reader = await alice.http(), await bob.http()
    session_id = (await client.add_session([bob.user_id]))["session_id"]
    message = group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "hi"})
    await phone.send_until_stored(message)
    if how == "left":
        await reader.change_session(session_id, remove=[bob.user_id])
    else:
        await client.delete_session(session_id)
    await receiver.expect(Delivered, lambda event: event.envelope.msg_type in {
        MsgType.SESSION_CHANGED, MsgType.SESSION_DELETED})  # fmt: skip
    assert [one["unread"] for one in await reader.conversations()] == [1]

    await receiver.send_until_stored(receipt(bob.user_id, message, MsgType.READ))
    await receiver.send_until_stored(bob.text_to(alice, "that was all"))

    assert {one["unread"] for one in await reader.conversations()} == {0}
    await next_chat(phone)
    types = {event.envelope.msg_type for event in phone.inbox.all(Delivered)}
    assert MsgType.READ not in types


@pytest.mark.proves(ErrorCode.MSG_ID_UNKNOWN, ErrorCode.SESSION_UNKNOWN)
@pytest.mark.parametrize("kind", [MsgType.RECEIVED, MsgType.READ])
async def test_only_messages_to_oneself_are_reported_and_receipts_are_not(people: People, kind: MsgType) -> None:
    alice, bob, stranger = await people("alice", "bob", "stranger")
    phone, receiver, elsewhere = await alice.device(), await bob.device(), await stranger.device()
    session_id = (await (await alice.http()).add_session([bob.user_id]))["session_id"]
    direct = text_message(alice.user_id, bob.user_id, "hi")
    group = group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "hi"})
    for message in (direct, group):
        await phone.send_until_stored(message)
    of_direct = receipt(bob.user_id, direct)
    await receiver.send_until_stored(of_direct)

    wrong = {
        "a message that is not there": (receiver, about(bob.user_id, kind, ["no-such"], to=alice.user_id)),
        "one of them is not there": (receiver, about(bob.user_id, kind, [direct.msg_id, "no-such"], to=alice.user_id)),
        "one's own": (phone, about(alice.user_id, kind, [direct.msg_id], to=bob.user_id)),
        "of another conversation": (receiver, about(bob.user_id, kind, [group.msg_id], to=alice.user_id)),
        "of two other people": (elsewhere, about(stranger.user_id, kind, [direct.msg_id], to=alice.user_id)),
        "a receipt": (phone, about(alice.user_id, kind, [of_direct.msg_id], to=bob.user_id)),
        "of a group one is not in": (elsewhere, receipt(stranger.user_id, group, kind)),
    }
    codes = {}
    for name, (device, envelope) in wrong.items():
        with pytest.raises(RefusedError) as refusal:
            await device.send_until_stored(envelope)
        codes[name] = refusal.value.code

    assert codes.pop("of a group one is not in") is ErrorCode.SESSION_UNKNOWN
    assert set(codes.values()) == {ErrorCode.MSG_ID_UNKNOWN}
    assert await _next_report(phone) == (bob.user_id, MsgType.RECEIVED, [direct.msg_id])

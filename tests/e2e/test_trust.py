"""Nobody can send in another user's name, whatever they write into the JSON or the stanza."""

import uuid
from xml.etree.ElementTree import Element, SubElement

import pytest
from tlim_client.failures import RefusedError
from tlim_client.inbox import Delivered, Plain, Refused, Stored
from tlim_client.stanzas import message_stanza
from tlim_client.xmpp import XmppClient
from tlim_protocol.errors import ErrorCode
from tlim_protocol.stanzas import FORWARD_NS

from tests.e2e.clients.people import People, Person, assert_next_is
from tests.e2e.clients.raw import raw_envelope


async def _assert_bob_only_hears_mallory(
    mallory: Person, device: XmppClient, bob: Person, receiver: XmppClient
) -> None:
    await assert_next_is(receiver, device, mallory.text_to(bob, "in my own name"), retry_after=1)
    assert [event.envelope.msg_from for event in receiver.inbox.all(Delivered)] == [mallory.user_id]


@pytest.mark.proves("field from", ErrorCode.FROM_NOT_SENDER)
async def test_a_forged_from_in_the_json_is_refused(people: People) -> None:
    mallory, alice, bob = await people("mallory", "alice", "bob")
    device, receiver = await mallory.device(), await bob.device()

    stanza_id = device.send_body(raw_envelope(alice, bob), bob.entrance)

    refused = await device.expect(Refused)
    assert (refused.code, refused.field, refused.stanza_id) == (ErrorCode.FROM_NOT_SENDER, "from", stanza_id)
    await _assert_bob_only_hears_mallory(mallory, device, bob, receiver)
    assert await (await alice.http()).history(bob.user_id) == []


async def test_a_forged_from_in_the_stanza_does_not_reach_anybody_in_that_name(people: People) -> None:
    mallory, alice, bob = await people("mallory", "alice", "bob")
    device, receiver = await mallory.device(), await bob.device()

    device.send_body(raw_envelope(alice, bob), bob.entrance, sender=alice.jid)
    device.send_body("plain, but forged", bob.jid, location=None, sender=alice.jid)

    await _assert_bob_only_hears_mallory(mallory, device, bob, receiver)
    heard = [event.from_jid for event in receiver.inbox.all(Delivered)]
    heard += [event.from_jid for event in receiver.inbox.all(Plain)]
    assert all(not from_jid.startswith(alice.jid) for from_jid in heard)
    assert await (await alice.http()).history(bob.user_id) == []


@pytest.mark.parametrize("claim", ["domain", "nothing"])
async def test_a_wrapping_that_only_the_server_may_use_is_not_believed(people: People, claim: str) -> None:
    mallory, alice, bob = await people("mallory", "alice", "bob")
    device, receiver = await mallory.device(), await bob.device()
    at = bob.stack.addresses
    inner = message_stanza(bob.jid, raw_envelope(alice, bob), str(uuid.uuid4()), sender_jid=f"{alice.jid}/phone")
    outer = message_stanza(
        at.component, None, str(uuid.uuid4()), location=None, sender_jid=at.domain if claim == "domain" else None
    )
    SubElement(outer, f"{{{FORWARD_NS}}}forwarded").append(inner)

    device.send_stanza(outer)

    await _assert_bob_only_hears_mallory(mallory, device, bob, receiver)
    assert await (await alice.http()).history(bob.user_id) == []


async def test_a_stored_or_a_refusal_made_by_a_user_is_not_believed(people: People) -> None:
    mallory, bob = await people("mallory", "bob")
    device, receiver = await mallory.device(), await bob.device()
    namespace = bob.stack.addresses.domain
    await receiver.features_of(namespace)  # the answer comes when Bob's presence is known
    for name, details in (("stored", {"seq": "1", "time": "1"}), ("error", {"code": ErrorCode.BODY_EMPTY.value})):
        stanza = message_stanza(bob.jid, details.get("code", "forged"), str(uuid.uuid4()), location=None)
        stanza.append(Element(f"{{{namespace}}}{name}", {"msg_id": "x", **details}))
        device.send_stanza(stanza)

    await _assert_bob_only_hears_mallory(mallory, device, bob, receiver)
    assert [event.body for event in receiver.inbox.all(Plain)] == ["forged", ErrorCode.BODY_EMPTY]
    assert (receiver.inbox.all(Stored), receiver.inbox.all(Refused)) == ([], [])


async def test_a_stranger_reads_no_history_and_without_a_token_nobody_reads_anything(people: People) -> None:
    alice, bob, mallory = await people("alice", "bob", "mallory")
    await (await alice.device()).send_until_stored(alice.text_to(bob, "between us"))
    stranger = await mallory.http()

    assert await stranger.history(alice.user_id) == []
    assert await stranger.history(bob.user_id) == []
    for token in (None, "not.a.token"):
        stranger.token = token
        for path in (f"/v1/conversations/{bob.user_id}/messages", "/v1/sessions", "/v1/files/x", "/v1/users"):
            with pytest.raises(RefusedError) as refusal:
                await stranger.call("GET", path)
            assert refusal.value.status == 401


@pytest.mark.proves("POST /v1/tokens")
async def test_who_logs_in_with_a_wrong_password_gets_no_token(people: People) -> None:
    alice, bob = await people("alice", "bob")
    client = await bob.http()

    for user, password in ((alice.user_id, bob.password), ("nobody-at-all", bob.password)):
        with pytest.raises(RefusedError) as refusal:
            await client.log_in(user, password)
        assert refusal.value.status == 401


@pytest.mark.proves("PUT /v1/users/{user_id}", ErrorCode.NOT_ALLOWED)
async def test_only_an_administrator_reaches_the_users_directory(people: People) -> None:
    (alice,) = await people("alice")

    with pytest.raises(RefusedError) as refusal:
        await (await alice.http()).put_user("made-up", "Made Up")

    assert (refusal.value.status, refusal.value.code) == (403, ErrorCode.NOT_ALLOWED)

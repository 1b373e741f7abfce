"""The first message from one person to another: it is stored and delivered, and can be read again in history."""

import pytest
from tlim_client.inbox import Delivered, Stored
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.people import People, next_delivered
from tests.e2e.clients.raw import packed, raw_envelope


@pytest.mark.proves(
    MsgType.TEXT,
    "field from",
    "field to",
    "field msg_id",
    "field msg_type",
    "field body",
    "GET /v1/conversations/{conversation}/messages",
)
@pytest.mark.proves("promise stored", "xmpp diverted")
async def test_a_message_is_stored_then_delivered_and_both_sides_read_it_in_history(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    sent = alice.text_to(bob, "你好, bob 👋 <&>\"'")

    stored = await phone.send_until_stored(sent)
    delivered = await next_delivered(receiver)

    assert stored.msg_id == sent.msg_id
    assert delivered.envelope == sent
    assert delivered.from_jid == alice.jid
    assert delivered.stanza_id == sent.msg_id
    assert (delivered.seq, delivered.time) == (stored.seq, stored.time)
    for reader, peer in ((alice, bob), (bob, alice)):
        (kept,) = await (await reader.http()).history(peer.user_id)
        assert (kept["seq"], kept["stored_at"], kept["msg_id"]) == (stored.seq, str(stored.time), sent.msg_id)
        assert kept["body"] == sent.body


async def test_an_answer_goes_back_in_the_same_conversation(people: People) -> None:
    alice, bob = await people("alice", "bob")
    one, other = await alice.device(), await bob.device()

    question = await one.send_until_stored(alice.text_to(bob, "lunch?"))
    answer = await other.send_until_stored(bob.text_to(alice, "yes"))

    assert (await next_delivered(one)).envelope.body == [{"text": "yes"}]
    assert question.seq < answer.seq
    history = await (await bob.http()).history(alice.user_id)
    assert [message["seq"] for message in history] == [answer.seq, question.seq]


@pytest.mark.proves(MsgType.TEXT, "field version", "field msg_time")
async def test_the_specification_s_own_notation_is_read_and_strict_json_is_delivered(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()

    phone.send_body(
        f"""{{
        compress:"0",
        encode:"1",
        encrypt:"0",
        version:"1.9",
        from:'{alice.user_id}',
        to:'{bob.user_id}',
        msg_id:'fd6c568e-19ca-4e4e-9709-24dec0bb2b8d',
        msg_type:'{MsgType.TEXT}',
        msg_time:'1599218283837',
        body:[ {{ text:'hello,world' }} ]
    }}""",
        bob.entrance,
        location="web",
    )

    stored = await phone.expect(Stored)
    delivered = await next_delivered(receiver)
    assert stored.msg_id == delivered.envelope.msg_id == "fd6c568e-19ca-4e4e-9709-24dec0bb2b8d"
    assert delivered.envelope.body == [REGISTRY[MsgType.TEXT].example]
    assert (delivered.envelope.version, delivered.envelope.msg_time) == ("1.9", "1599218283837")
    (kept,) = await (await bob.http()).history(alice.user_id)
    assert (kept["version"], kept["msg_time"]) == ("1.9", "1599218283837")


@pytest.mark.proves("field compress")
async def test_a_compressed_body_is_delivered_and_stored_unpacked(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()

    phone.send_body(raw_envelope(alice, bob, compress="1", body=packed('[{"text":"压缩"}]'.encode())), bob.entrance)

    delivered = await next_delivered(receiver)
    assert (delivered.envelope.compress, delivered.envelope.body) == ("0", [{"text": "压缩"}])
    (kept,) = await (await bob.http()).history(alice.user_id)
    assert (kept["compress"], kept["body"]) == ("0", [{"text": "压缩"}])


@pytest.mark.proves("xmpp addressed")
async def test_a_message_addressed_to_the_bridge_itself_is_taken_too(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    sent = alice.text_to(bob, "as from an Openfire client")

    stored = await phone.send_until_stored(sent, to=f"{bob.user_id}@{bob.stack.addresses.component}")

    delivered = await next_delivered(receiver)
    assert (delivered.envelope, delivered.seq, delivered.from_jid) == (sent, stored.seq, alice.jid)


@pytest.mark.proves("field from", "field to")
@pytest.mark.parametrize("spelling", [str.upper, str.title])
async def test_user_ids_are_compared_as_xmpp_compares_them(people: People, spelling: object) -> None:
    assert callable(spelling)
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    written = raw_envelope(alice, bob, from_=spelling(alice.user_id), to=spelling(bob.user_id))

    phone.send_body(written, bob.entrance)

    await phone.expect(Stored)
    delivered = await next_delivered(receiver)
    assert (delivered.envelope.msg_from, delivered.envelope.msg_to) == (alice.user_id, bob.user_id)


async def test_a_message_to_oneself_comes_back_once(people: People) -> None:
    (alice,) = await people("alice")
    phone = await alice.device()
    note = alice.text_to(alice, "buy milk")

    await phone.send_until_stored(note)
    await phone.send_until_stored(alice.text_to(alice, "and bread"))

    await phone.expect(Delivered, lambda event: event.envelope.body == [{"text": "and bread"}])
    assert [event.envelope.msg_id for event in phone.inbox.all(Delivered)].count(note.msg_id) == 1

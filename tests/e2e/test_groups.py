"""Groups: a message is stored once, and delivered to all who are members at that moment, and to nobody else."""

from pathlib import Path

import pytest
from tlim_client.compose import group_message
from tlim_client.failures import RefusedError
from tlim_client.inbox import Delivered, Stored
from tlim_client.xmpp import XmppClient
from tlim_protocol.envelope import Envelope, write_envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.notices import MAX_LISTED
from tlim_protocol.registry import REGISTRY, MsgType

from tests.e2e.clients.people import People, Person, assert_next_is, next_chat
from tests.e2e.clients.raw import raw_envelope

GROUP_FILES = [kind for kind, row in REGISTRY.items() if row.is_group and row.carries_file]


def _text(sender: Person, session_id: str, text: str) -> Envelope:
    return group_message(sender.user_id, session_id, MsgType.TEXT, {"text": text})


async def _session(creator: Person, *others: Person) -> str:
    made = await (await creator.http()).add_session([other.user_id for other in others])
    return str(made["session_id"])


def _chats(device: XmppClient) -> list[str]:
    return [event.envelope.msg_id for event in device.inbox.all(Delivered) if REGISTRY[event.envelope.msg_type].is_chat]


@pytest.mark.proves(MsgType.GROUP_TEXT, "field to")
async def test_the_first_message_straight_after_the_session_was_made_reaches_each_other_member_once(
    people: People,
) -> None:
    alice, bob, carol, stranger = await people("alice", "bob", "carol", "stranger")
    phone, devices, elsewhere = (
        await alice.device(),
        [await bob.device(), await carol.device()],
        await stranger.device(),
    )

    session_id = await _session(alice, bob, carol)
    first, second = _text(alice, session_id, "你好"), _text(alice, session_id, "everybody")
    stored = [await phone.send_until_stored(message) for message in (first, second)]

    for device in devices:
        delivered = [await next_chat(device) for _ in stored]
        assert [event.envelope for event in delivered] == [first, second]
        assert [event.seq for event in delivered] == [one.seq for one in stored]
        assert {event.from_jid for event in delivered} == {alice.jid}
    await phone.send_until_stored(alice.text_to(stranger, "you were not meant"))
    await next_chat(elsewhere)
    assert (len(_chats(elsewhere)), _chats(phone)) == (1, [])
    for reader in (alice, bob, carol):
        history = await (await reader.http()).history(session_id, after=0)
        assert [message["seq"] for message in history] == [one.seq for one in stored]


@pytest.mark.proves(MsgType.GROUP_TEXT, "field to")
async def test_whom_a_group_message_names_in_to_makes_no_difference(people: People) -> None:
    alice, bob, stranger = await people("alice", "bob", "stranger")
    phone, receiver, elsewhere = await alice.device(), await bob.device(), await stranger.device()
    session_id = await _session(alice, bob)
    body = [{"session_id": session_id, "text": "for the group"}]

    for to in (stranger.user_id, bob.user_id, "nobody-has-this-id", "", "No User Id"):
        phone.send_body(raw_envelope(alice, stranger, msg_type=MsgType.GROUP_TEXT, to=to, body=body), stranger.entrance)
    stored = [await phone.expect(Stored) for _ in range(5)]

    delivered = [await next_chat(receiver) for _ in stored]
    assert [(event.envelope.msg_id, event.envelope.body) for event in delivered] == [
        (one.msg_id, body) for one in stored
    ]
    marker = alice.text_to(stranger, "you were not meant")
    await assert_next_is(elsewhere, phone, marker)
    assert [kept["seq"] for kept in await (await alice.http()).history(session_id, after=0)] == [s.seq for s in stored]
    assert [item["msg_id"] for item in (await (await stranger.http()).sync())[0]] == [marker.msg_id]


@pytest.mark.proves(MsgType.GROUP_TODO, "field body")
async def test_a_to_do_keeps_every_key_it_was_written_with(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, receiver = await alice.device(), await bob.device()
    content = {"title": "合同", "content": {"pages": [1, 2]}, "url": "https://example.org/?a=1&b=2", "done": False}

    session_id = await _session(alice, bob)
    todo = group_message(alice.user_id, session_id, MsgType.GROUP_TODO, content)
    await phone.send_until_stored(todo)

    assert (await next_chat(receiver)).envelope.body == [{"session_id": session_id, **content}]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.proves(kind)) for kind in GROUP_FILES])
async def test_a_file_of_a_group_is_for_its_members(people: People, tmp_path: Path, kind: MsgType) -> None:
    alice, bob, carol, stranger = await people("alice", "bob", "carol", "stranger")
    phone, receiver = await alice.device(), await bob.device()
    (tmp_path / "plan.txt").write_text("the plan")
    session_id = await _session(alice, bob)
    file_id = await (await alice.http()).upload(tmp_path / "plan.txt")

    await phone.send_until_stored(group_message(alice.user_id, session_id, kind, {"file_id": file_id}))

    delivered = await next_chat(receiver)
    assert (delivered.envelope.msg_type, delivered.envelope.file_ids) == (kind, [file_id])
    got = await (await bob.http()).download(file_id, tmp_path / "got.txt")
    assert got.path.read_text() == "the plan"
    await (await alice.http()).change_session(session_id, add=[carol.user_id])
    welcome = _text(alice, session_id, "welcome")
    await phone.send_until_stored(welcome)
    assert [kept["msg_id"] for kept in await (await carol.http()).history(session_id)] == [welcome.msg_id]
    for nobody in (stranger, carol):  # carol came after it
        with pytest.raises(RefusedError) as refusal:
            await (await nobody.http()).download(file_id, tmp_path / "not.txt")
        assert refusal.value.code is ErrorCode.FILE_UNKNOWN


@pytest.mark.proves(ErrorCode.NOT_ALLOWED, ErrorCode.SESSION_UNKNOWN, ErrorCode.SESSION_ID_EMPTY)
async def test_who_is_not_in_it_is_refused_and_nobody_hears_of_it(people: People) -> None:
    alice, bob, stranger = await people("alice", "bob", "stranger")
    phone, receiver, elsewhere = await alice.device(), await bob.device(), await stranger.device()
    session_id, closed = await _session(alice, bob), await _session(alice, bob)
    await (await alice.http()).delete_session(closed)
    two = group_message(alice.user_id, session_id, MsgType.TEXT, {"text": "hi"})
    two.body.append({"session_id": closed, "text": "hi"})

    refused = {}
    for device, message in (
        (elsewhere, _text(stranger, session_id, "let me in")),
        (phone, _text(alice, "no-such-session", "hi")),
        (phone, _text(alice, closed, "hi")),
        (phone, two),
    ):
        with pytest.raises(RefusedError) as refusal:
            await device.send_until_stored(message)
        refused[message.msg_id] = refusal.value.code
    heard = _text(alice, session_id, "only this is heard")
    await phone.send_until_stored(heard)

    assert list(refused.values()) == [
        ErrorCode.SESSION_UNKNOWN,
        ErrorCode.SESSION_UNKNOWN,
        ErrorCode.SESSION_UNKNOWN,
        ErrorCode.SESSION_ID_EMPTY,
    ]
    assert (await next_chat(receiver)).envelope == heard
    assert [kept["msg_id"] for kept in await (await bob.http()).history(session_id)] == [heard.msg_id]


@pytest.mark.proves("PATCH /v1/sessions/{session_id}", "GET /v1/conversations/{conversation}/messages")
async def test_everybody_gets_and_reads_what_was_written_while_he_was_in_it(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    phone, bobs, carols = await alice.device(), await bob.device(), await carol.device()
    client = await alice.http()
    session_id = await _session(alice, bob)
    texts = [_text(alice, session_id, text) for text in ("with bob", "with both", "with carol")]

    await phone.send_until_stored(texts[0])
    await client.change_session(session_id, add=[carol.user_id])
    await phone.send_until_stored(texts[1])
    await client.change_session(session_id, remove=[bob.user_id])
    await phone.send_until_stored(texts[2])
    for other in (bob, carol):
        await phone.send_until_stored(alice.text_to(other, "that was all"))

    for person, device, meant in ((bob, bobs, texts[:2]), (carol, carols, texts[1:])):
        assert [(await next_chat(device)).envelope for _ in range(3)][:2] == meant
        history = await (await person.http()).history(session_id, after=0)
        assert [kept["msg_id"] for kept in history] == [message.msg_id for message in meant]
    with pytest.raises(RefusedError) as refusal:
        await bobs.send_until_stored(_text(bob, session_id, "still me"))
    assert refusal.value.code is ErrorCode.NOT_ALLOWED


@pytest.mark.proves(MsgType.SESSION_ADDED, MsgType.SESSION_CHANGED, MsgType.SESSION_DELETED)
async def test_everybody_is_told_what_happens_to_a_session_also_who_was_just_removed(people: People) -> None:
    alice, bob, carol = await people("alice", "bob", "carol")
    everybody = {alice: await alice.device(), bob: await bob.device(), carol: await carol.device()}
    client = await alice.http()

    session_id = await _session(alice, bob, carol)
    await client.change_session(session_id, session_name="Project X", remove=[carol.user_id])
    await client.delete_session(session_id)

    for person, device in everybody.items():
        kinds = [MsgType.SESSION_ADDED, MsgType.SESSION_CHANGED, MsgType.SESSION_DELETED][: 2 if person is carol else 3]
        notices = [await device.expect(Delivered) for _ in kinds]
        assert [notice.envelope.msg_type for notice in notices] == kinds
        assert {(notice.from_jid, notice.envelope.msg_from) for notice in notices} == {
            (person.stack.addresses.domain, alice.user_id)
        }
        added, changed = (notice.envelope.body[0] for notice in notices[:2])
        assert [one["user_id"] for one in added["subscribers"]] == [alice.user_id, bob.user_id, carol.user_id]
        assert (changed["session_name"], changed["removed"]) == ("Project X", [{"user_id": carol.user_id}])
        assert (changed["subscribers_count"], changed["version"], "subscribers" in changed) == (2, 2, False)
    await assert_next_is(everybody[carol], everybody[alice], alice.text_to(carol, "you were not told of its end"))


@pytest.mark.proves(MsgType.SESSION_CHANGED, "GET /v1/sessions/{session_id}/subscribers")
async def test_of_a_large_change_everybody_hears_in_short_and_any_member_asks_who_is_in_it(people: People) -> None:
    alice, bob = await people("alice", "bob")
    phone, others = await alice.device(), await people.known(MAX_LISTED)
    session_id = await _session(alice, bob)
    await phone.expect(Delivered)

    await (await alice.http()).change_session(session_id, add=others)

    notice = await phone.expect(Delivered)
    (told,) = notice.envelope.body
    assert len(write_envelope(notice.envelope).encode()) < 1024
    assert not {"subscribers", "added"} & told.keys()
    assert (told["added_count"], told["subscribers_count"]) == (MAX_LISTED, MAX_LISTED + 2)
    found = [one["user_id"] async for one in (await bob.http()).pages(f"/v1/sessions/{session_id}/subscribers")]
    assert found == [alice.user_id, bob.user_id, *others]

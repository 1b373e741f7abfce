"""Messages through the whole store: stored, published, acknowledged; and everything that can be odd about one."""

from typing import Any

from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import FileQuestion, FileVerdict, RejectedMessage, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc, subject_in


async def test_a_message_is_stored_then_published_and_acknowledged(world: Any, accepted: Any) -> None:
    async with world.running():
        await world.send(accepted("m1"))
        await world.settled(1)
    (row,) = await world.rows()
    assert (row["conversation_id"], row["sender"], row["recipient"]) == ("u:alice:bob", "alice", "bob")
    assert (row["msg_id"], row["msg_type"], row["location"]) == ("m1", MsgType.TEXT, "web")
    (event,) = await world.out()
    assert isinstance(event, StoredMessage)
    assert (event.seq, event.stored_at, event.recipients) == (row["seq"], row["stored_at"], ["bob"])
    assert event.envelope == accepted("m1").envelope
    assert (event.reply_to, event.stanza_id) == ("alice@im.example/web", "m1")


async def test_the_body_is_kept_to_the_letter(world: Any, accepted: Any) -> None:
    body = [{"z": 1, "text": "nul \x00, 你好 😀", "a": 12345678901234567890, "f": 1e300, "deep": [[{"x": None}]]}]
    async with world.running():
        await world.send(accepted("m1", body=body))
        await world.settled(1)
    ((text,),) = await world.sql("SELECT body::text FROM messages")
    assert text == '[{"z":1,"text":"nul \\u0000, 你好 😀","a":12345678901234567890,"f":1e300,"deep":[[{"x":null}]]}]'
    assert (await world.deliveries())[0].envelope.body == body


async def test_two_senders_interleaved_keep_their_order(world: Any, accepted: Any) -> None:
    messages = [
        accepted(f"m{i}", sender, to) for i in range(100) for sender, to in (("alice", "bob"), ("bob", "alice"))
    ]
    await world.send(*messages)
    async with world.running():
        await world.settled(200)
    expected = [(message.sender, message.envelope.msg_id) for message in messages]
    assert [(row["sender"], row["msg_id"]) for row in await world.rows()] == expected
    deliveries = await world.deliveries()
    assert [(event.envelope.msg_from, event.envelope.msg_id) for event in deliveries] == expected
    assert [event.seq for event in deliveries] == sorted(event.seq for event in deliveries)


async def test_a_resend_is_confirmed_again_and_delivered_once(world: Any, accepted: Any, eventually: Any) -> None:
    async with world.running():
        await world.send(accepted("m1"))
        await world.settled(1)
        await world.send(accepted("m1", received_at=1_700_000_009_999, stanza_id="again"))

        async def confirmed() -> None:
            first, second = await world.out()
            assert (first.recipients, second.recipients) == (["bob"], [])
            assert (first.seq, first.stored_at) == (second.seq, second.stored_at)
            assert second.stanza_id == "again"

        await eventually(confirmed)
        await world.settled(1)


async def test_another_message_under_the_same_msg_id_is_refused_whatever_the_release_that_stored_the_first(
    world: Any, accepted: Any, eventually: Any
) -> None:
    async with world.running():
        await world.send(accepted("m1", body=[{"text": "hi", "n": 1}]))
        await world.settled(1)
        await world.sql('UPDATE messages SET body = \'[{"text":"hi", "n": 1.0}]\'')  # as another release may write it
        again = [[{"n": 1, "text": "hi"}], [{"n": 2, "text": "hi"}], [{"text": "x" * 100_000}]]
        for number, body in enumerate(again):
            await world.send(accepted("m1", body=body, stanza_id=f"again{number}"))

        async def answered() -> None:
            _, same, other, longer = await world.out()
            assert same.recipients == []
            assert {(one.code, one.field) for one in (other, longer)} == {(ErrorCode.FIELD_INVALID, "msg_id")}

        await eventually(answered)
        await world.settled(1)


async def test_a_receipt_is_compared_with_what_was_sent_where_the_log_keeps_only_what_was_news(
    world: Any, accepted: Any, eventually: Any
) -> None:
    def read(msg_id: str, *names: str) -> Any:
        return accepted(msg_id, "bob", "alice", MsgType.READ, body=[{"msg_id": name} for name in names])

    async with world.running():
        await world.send(accepted("m1"), accepted("m2"), read("r1", "m1"), read("r2", "m1", "m2"))
        await world.settled(4)
        await world.send(read("r2", "m1", "m2"))
        await world.send(read("r2", "m2"))

        async def answered() -> None:
            *_, kept, same, other = await world.out()
            assert (kept.envelope.body, same.recipients) == ([{"msg_id": "m2"}], [])
            assert (other.code, other.field) == (ErrorCode.FIELD_INVALID, "msg_id")

        await eventually(answered)
        await world.settled(4)


async def test_copies_within_one_batch_are_stored_once(world: Any, accepted: Any) -> None:
    await world.send(accepted("m1"))
    await world.send(accepted("m1", received_at=1_700_000_009_999))
    await world.send(accepted("m2"))
    async with world.running():
        await world.settled(2)
    out = await world.out()
    assert [(event.envelope.msg_id, event.recipients) for event in out] == [
        ("m1", ["bob"]),
        ("m1", []),
        ("m2", ["bob"]),
    ]


async def test_a_message_to_nobody_is_refused_and_nothing_is_stored(world: Any, accepted: Any) -> None:
    world.directory.strangers.add("nobody")
    await world.send(accepted("m1", to="nobody"), accepted("m2"))
    async with world.running():
        await world.settled(1)
    refused, stored = await world.out()
    assert isinstance(refused, RejectedMessage)
    assert (refused.code, refused.field, refused.msg_id) == (ErrorCode.USER_UNKNOWN, "to", "m1")
    assert stored.envelope.msg_id == "m2"
    assert [row[0] for row in await world.sql("SELECT conversation_id FROM conversations")] == ["u:alice:bob"]


async def test_the_directory_is_never_asked_for_a_known_conversation(world: Any, accepted: Any) -> None:
    await world.send(accepted("m1"), accepted("m2"), accepted("m3", "carol", "alice"))
    async with world.running():
        await world.settled(3)
        asked = list(world.directory.questions)  # one for each batch with a new conversation
        await world.send(accepted("m4"))
        await world.settled(4)
    assert world.directory.questions == asked
    assert {user for question in asked for user in question.seen} == {"alice", "carol"}
    assert {user for question in asked for user in question.ask} == {"alice", "bob"}


async def test_without_a_directory_first_messages_are_refused_and_others_flow(world: Any, accepted: Any) -> None:
    async with world.running():
        await world.send(accepted("m1"))
        await world.settled(1)
        await world.stop_directory()
        await world.send(accepted("m2", to="carol"), accepted("m3"))
        await world.settled(2)
    _, refused, stored = await world.out()
    assert (refused.code, refused.msg_id) == (ErrorCode.UNAVAILABLE, "m2")
    assert (stored.envelope.msg_id, stored.recipients) == ("m3", ["bob"])


async def test_what_is_no_message_goes_to_the_dead_letters_and_its_neighbours_are_stored(
    world: Any, accepted: Any
) -> None:
    subject = subject_in(MsgType.TEXT, "u:alice:bob")
    await world.send(accepted("m1"))
    await world.send_raw(subject, b"\xff no json")
    await world.send_raw(subject, accepted("m2", sender="bob", to="alice").to_bytes().replace(b"bob", b"eve", 1))
    await world.send(accepted("m3"))
    async with world.running():
        await world.settled(2)
    assert [row["msg_id"] for row in await world.rows()] == ["m1", "m3"]
    (first, first_reason), (_, second_reason) = await world.dead()
    assert first == b"\xff no json"
    assert "not an accepted message" in first_reason
    assert "another sender" in second_reason


async def test_a_row_that_postgresql_refuses_is_dead_lettered_and_its_neighbours_are_stored(
    world: Any, accepted: Any
) -> None:
    await world.send(accepted("m1"))
    await world.send_raw(subject_in(MsgType.TEXT, "u"), accepted("nul \x00").to_bytes())
    await world.send_raw(subject_in(MsgType.TEXT, "u"), accepted(_incompressible(9_000)).to_bytes())
    await world.send(accepted("m2"), accepted("m1", received_at=1))
    async with world.running():
        await world.settled(2)
    assert [row["msg_id"] for row in await world.rows()] == ["m1", "m2"]
    assert [event.envelope.msg_id for event in await world.out()] == ["m1", "m2", "m1"]
    reasons = [reason for _, reason in await world.dead()]
    assert len(reasons) == 2
    assert all("the database refuses it" in reason for reason in reasons)


async def test_who_sees_a_message_with_a_file_may_read_it_unless_it_was_recalled(world: Any, accepted: Any) -> None:
    picture = {"msg_type": MsgType.IMAGE, "body": [{"file_id": "f1"}]}
    async with world.running():
        await world.send(accepted("m1", **picture), accepted("m2", "carol", "dave", **picture), accepted("m3"))
        await world.settled(3)
        file_api = await world.connect("file-api")

        async def allowed(file_id: str, *users: str) -> list[str]:
            asked = [FileQuestion(file_id=file_id, user_id=user_id).to_bytes() for user_id in users]
            answers = [await file_api.request(Rpc.MESSAGE_GRANTS, question, timeout_s=30) for question in asked]
            return [user for user, data in zip(users, answers, strict=True) if FileVerdict.from_bytes(data).allowed]

        assert await allowed("f1", "alice", "bob", "carol", "dave", "eve") == ["alice", "bob", "carol", "dave"]
        assert await allowed("f2", "bob") == []
        await world.sql("UPDATE messages SET recalled_at = 1 WHERE msg_id = 'm1'")
        assert await allowed("f1", "alice", "bob", "carol", "dave") == ["carol", "dave"]
        await world.sql("UPDATE members SET joined_seq = (SELECT max(seq) FROM messages) WHERE user_id = 'dave'")
        assert await allowed("f1", "carol", "dave") == ["carol"]


def _incompressible(length: int) -> str:
    """Text that no index entry has room for."""
    state, characters = 1, []
    for _ in range(length):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        characters.append(chr(33 + (state >> 33) % 90))
    return "".join(characters).replace("\\", "/").replace('"', "'")

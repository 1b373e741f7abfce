"""Receipts and recalls on real tables: what they leave behind, and that a repair tells it to the same people."""

from typing import Any

from tlim_protocol.events import FileQuestion, FileVerdict, SeqsAnswer, SeqsQuestion
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import Rpc


def report(accepted: Any, msg_id: str, kind: MsgType, *names: str, sender: str = "bob", **changes: Any) -> Any:
    session_id = changes.pop("session_id", None)
    mark = {} if session_id is None else {"session_id": session_id}
    to = None if session_id is not None else "alice" if sender == "bob" else "bob"
    return accepted(msg_id, sender, to, kind, body=[{"msg_id": name, **mark} for name in names], **changes)


def to_group(accepted: Any, msg_id: str, sender: str = "alice") -> Any:
    body = [{"session_id": "s1", "text": f"text of {msg_id}"}]
    return accepted(msg_id, sender, None, MsgType.GROUP_TEXT, body=body)


async def test_receipts_are_kept_per_person_with_their_times_and_the_cursor_only_rises(
    world: Any, accepted: Any
) -> None:
    async with world.running():
        await world.send(accepted("m1"), accepted("m2"), report(accepted, "r1", MsgType.RECEIVED, "m1", "m2"))
        await world.settled(3)
        await world.send(report(accepted, "r2", MsgType.READ, "m2"), report(accepted, "r3", MsgType.READ, "m1"))
        await world.send(report(accepted, "r4", MsgType.READ, "m1", "m2"))
        await world.settled(6)
    rows = await world.rows()
    receipts = await world.sql("SELECT seq, user_id, delivered_at, read_at FROM receipts ORDER BY seq")
    assert [(one["seq"], one["user_id"]) for one in receipts] == [(rows[0]["seq"], "bob"), (rows[1]["seq"], "bob")]
    assert all(one["delivered_at"] <= one["read_at"] for one in receipts)
    ((user_id, read_seq),) = await world.sql("SELECT user_id, read_seq FROM read_cursors")
    assert (user_id, read_seq) == ("bob", rows[1]["seq"])
    assert [event.recipients for event in await world.out()] == [["bob"]] * 2 + [["alice"]] * 3 + [[]]
    ((last_seq,),) = await world.sql("SELECT last_seq FROM conversations")
    assert last_seq == rows[1]["seq"]


async def test_group_receipts_find_messages_receipts_and_memberships_of_earlier_batches(
    world: Any, accepted: Any, session_event: Any
) -> None:
    async with world.running():
        await world.announce(session_event("s1", 1, "alice", "bob", "carol"))
        await world.send(to_group(accepted, "m1"), to_group(accepted, "m2", "carol"))
        await world.announce(session_event("s1", 2, "alice", "carol"))
        await world.send(to_group(accepted, "m3"))
        await world.announce(session_event("s1", 3, "alice", "bob", "carol"))
        await world.settled(6)
        await world.send(report(accepted, "r1", MsgType.RECEIVED, "m1", "m2", session_id="s1"))
        await world.settled(7)
        await world.send(report(accepted, "r2", MsgType.RECEIVED, "m2", session_id="s1"))
        await world.send(report(accepted, "r3", MsgType.READ, "m2", session_id="s1"))
        await world.send(report(accepted, "r4", MsgType.READ, "m3", session_id="s1"))
        await world.settled(9)
    *_, first, second, third, refused = await world.out()
    assert [first.recipients, second.recipients, third.recipients] == [["alice", "carol"], [], ["alice", "carol"]]
    assert refused.msg_id == "r4"
    addressees = await world.sql("SELECT user_id FROM addressees WHERE seq = $1 ORDER BY user_id", first.seq)
    assert [row[0] for row in addressees] == ["alice", "carol"]


async def test_a_recalled_message_leaves_a_tombstone_and_an_audit(world: Any, accepted: Any) -> None:
    picture = accepted("m1", msg_type=MsgType.IMAGE, body=[{"file_id": "f1"}])
    async with world.running():
        await world.send(picture, accepted("m2"))
        await world.settled(2)
        await world.sql("UPDATE messages SET stored_at = stored_at - 121000 WHERE msg_id = 'm2'")
        # by the clock of the bridge it is the other way round
        recall = report(accepted, "c1", MsgType.RECALL, "m1", sender="alice", received_at=9_999_999_999_999)
        late = report(accepted, "c2", MsgType.RECALL, "m2", sender="alice", received_at=0)
        await world.send(recall, late)
        await world.settled(3)
        bridge = await world.connect("xmpp-bridge")
        seqs = [row["seq"] for row in await world.rows()]
        answer = await bridge.request(Rpc.MESSAGE_RECALLED, SeqsQuestion(seqs=seqs).to_bytes(), timeout_s=30)
        file_api, asked = await world.connect("file-api"), FileQuestion(file_id="f1", user_id="alice")
        verdict = FileVerdict.from_bytes(await file_api.request(Rpc.MESSAGE_GRANTS, asked.to_bytes(), timeout_s=30))
    assert verdict == FileVerdict(allowed=False, recalled=True)
    assert SeqsAnswer.from_bytes(answer).seqs == seqs[:1]
    recalled, other, _ = await world.rows()
    assert recalled["body"] == "[]"
    assert (recalled["recalled_at"] is not None, other["recalled_at"]) == (True, None)
    ((seq, sender, kind, body),) = await world.sql("SELECT seq, sender, msg_type, body FROM recalls")
    assert (seq, sender, kind, body) == (seqs[0], "alice", MsgType.IMAGE, None)


async def test_a_message_recalled_in_its_own_batch_is_recalled_and_the_text_kept_where_configured(
    world: Any, accepted: Any
) -> None:
    await world.send(accepted("m1"), report(accepted, "c1", MsgType.RECALL, "m1", sender="alice"))
    async with world.running(keep_recalled_text=True):
        await world.settled(2)
    assert (await world.rows())[0]["body"] == "[]"
    ((body,),) = await world.sql("SELECT body::text FROM recalls")
    assert body == '[{"text":"text of m1"}]'


async def test_a_repair_tells_receipts_and_recalls_but_not_what_was_taken_back(
    world: Any, accepted: Any, session_event: Any
) -> None:
    async with world.running():
        await world.announce(session_event("s1", 1, "alice", "bob", "carol"))
        await world.send(
            to_group(accepted, "m1"), to_group(accepted, "m2", "carol"), accepted("m3"),
            report(accepted, "r1", MsgType.RECEIVED, "m1", "m2", session_id="s1"),
            report(accepted, "r2", MsgType.RECEIVED, "m1", session_id="s1"),
            report(accepted, "c1", MsgType.RECALL, "m1", sender="alice", session_id="s1"),
        )  # fmt: skip
        await world.settled(7)
        await world.send(to_group(accepted, "m5"))
        await world.announce(session_event("s1", 2, "alice", "carol"))
        await world.announce(session_event("s1", 3, "carol", "dave"))
        await world.settled(10)
        await world.send(
            report(accepted, "c2", MsgType.RECALL, "m5", sender="alice", session_id="s1"),
            report(accepted, "r3", MsgType.READ, "m2", session_id="s1"),
        )
        await world.settled(12)
    *_, recall, read = await world.out()
    assert (recall.recipients, read.recipients) == (["bob", "carol"], [])
    before = {event.seq: event for event in await world.deliveries()}
    await world.recreate_stream(StreamName.OUT)
    async with world.running():
        await world.send(accepted("m4"))
        await world.settled(13)
    after = {event.seq: event for event in await world.deliveries()}
    assert {event.envelope.msg_id for event in before.values()} >= {"m1", "m5", "c1", "c2"}
    kept = {seq: event for seq, event in before.items() if event.envelope.msg_id not in {"m1", "m5"}}
    assert {seq: (sorted(event.recipients), event.envelope.body) for seq, event in after.items() if seq in before} == {
        seq: (sorted(event.recipients), event.envelope.body) for seq, event in kept.items()
    }

"""Mailboxes over NATS, with a running store: what was missed is what was published for the person, and nothing else."""

from typing import Any

import pytest
from tlim_protocol.events import StoredMessage
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import (
    LiveAnswer,
    LivePerson,
    LiveQuestion,
    MailboxNote,
    MailboxNoted,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc
from tlim_runtime.outages import BrokerUnavailable

PEOPLE = ("alice", "bob", "carol", "dave")


async def missed(world: Any, user_id: str) -> list[StoredMessage]:
    """All pages of two, as the bridge asks for them."""
    events: list[StoredMessage] = []
    question = MissedQuestion(user_id=user_id, limit=2)
    while True:
        data = await world.bridge.request(Rpc.MAILBOX_MISSED, question.to_bytes(), timeout_s=30)
        answer = MissedAnswer.from_bytes(data)
        events += answer.events
        if not answer.more:
            return events
        question = MissedQuestion(user_id=user_id, limit=2, after=answer.next, receipts=answer.receipts)


def to_group(accepted: Any, msg_id: str, sender: str) -> Any:
    body = [{"session_id": "s1", "text": f"text of {msg_id}"}]
    return accepted(msg_id, sender, None, MsgType.GROUP_TEXT, body=body)


def about(accepted: Any, sender: str, msg_type: MsgType, name: str, to: str | None = None) -> Any:
    mark = {} if to is not None else {"session_id": "s1"}
    return accepted(f"{sender} {msg_type} {name}", sender, to, msg_type, body=[{"msg_id": name, **mark}])


async def test_what_was_missed_is_what_was_published_for_the_person(
    world: Any, accepted: Any, session_event: Any, eventually: Any
) -> None:
    async with world.running(read_to_all=3):
        await world.send(
            accepted("m1"), accepted("m2", body=[{"text": "1", "size": 10}]), accepted("m3", "bob", "alice"),
            accepted("note", "alice", "alice"),
            about(accepted, "bob", MsgType.READ, "m1", "alice"), about(accepted, "alice", MsgType.RECALL, "m2", "bob"),
        )  # fmt: skip
        await world.settled(6)
        await world.announce(session_event("s1", 1, "alice", "bob", "carol"))
        await world.send(to_group(accepted, "g1", "alice"), to_group(accepted, "g2", "bob"))
        await world.settled(9)
        await world.announce(session_event("s1", 2, "alice", "bob", "dave"))
        await world.settled(10)
        await world.send(
            to_group(accepted, "g3", "bob"), about(accepted, "bob", MsgType.RECEIVED, "g1"),
            about(accepted, "dave", MsgType.READ, "g3"), about(accepted, "carol", MsgType.READ, "g2"),
            about(accepted, "alice", MsgType.RECALL, "g1"),
        )  # fmt: skip
        await world.settled(15)
        await world.announce(session_event("s1", 3, "alice", "bob", "carol", "dave"))
        await world.send(to_group(accepted, "g4", "alice"), about(accepted, "dave", MsgType.READ, "g4"))

        async def the_author_heard_of_the_reader_in_the_large_group() -> None:
            assert (await world.deliveries())[-1].envelope.body[0].get("readers") == [{"user_id": "dave"}]

        await eventually(the_author_heard_of_the_reader_in_the_large_group)
        published = await world.deliveries()
        recalled = {row["seq"] for row in await world.rows() if row["recalled_at"] is not None}
        for person in PEOPLE:
            theirs = [event for event in published if person in event.recipients and event.seq not in recalled]
            found = await missed(world, person)
            assert [event.seq for event in found] == [event.seq for event in theirs]
            assert [event.envelope for event in found] == [event.envelope for event in theirs]
            assert [event.stored_at for event in found] == [event.stored_at for event in theirs]
            assert {(*event.recipients, event.reply_to, event.tells_sender) for event in found} == {
                (person, None, False)
            }


async def test_a_note_is_kept_by_the_store_and_known_to_the_next_one(world: Any, accepted: Any) -> None:
    notes = [MailboxNote(user_id="bob", sessions=["s1"], is_new=True), MailboxNote(user_id="dave")]
    shard = delivery_shard("bob")
    async with world.running():
        await world.send(accepted("m1"))
        await world.settled(1)
        answer = await world.bridge.request(
            Rpc.MAILBOX_NOTE, MailboxNotes(shard=shard, term=0, notes=notes).to_bytes(), timeout_s=30
        )
        assert MailboxNoted.from_bytes(answer) == MailboxNoted()
    async with world.running():
        answer = await world.bridge.request(Rpc.MAILBOX_LIVE, LiveQuestion(shard=shard).to_bytes(), timeout_s=30)
    people = [LivePerson(user_id="bob", sessions=["s1"])]
    assert LiveAnswer.from_bytes(answer) == LiveAnswer(people=people, more=False, term=1)


async def test_the_largest_message_fits_into_an_answer_behind_a_page_of_others(world: Any, accepted: Any) -> None:
    small = accepted("m1", body=[{"text": "x" * 900_000}])
    large = accepted("m2", body=[{"text": "\x01" * 1_150_000}])  # each is \u0001 in JSON: 7 MB
    async with world.running():
        await world.send(small, large, accepted("m3"))
        await world.settled(3)
        assert [event.envelope.msg_id for event in await missed(world, "bob")] == ["m1", "m2", "m3"]


async def test_while_the_database_is_away_the_bridge_is_told_so_at_once(
    own_world: Any, restartable_postgres: Any
) -> None:
    async with own_world.running():
        restartable_postgres.stop()
        for subject, question in (
            (Rpc.MAILBOX_NOTE, MailboxNotes(shard=0, term=0, notes=[MailboxNote(user_id="bob")])),
            (Rpc.MAILBOX_LIVE, LiveQuestion(shard=0)),
            (Rpc.MAILBOX_MISSED, MissedQuestion(user_id="bob")),
        ):
            with pytest.raises(BrokerUnavailable, match=r"^tlim.rpc.mailbox"):
                await own_world.bridge.request(subject, question.to_bytes(), timeout_s=30)
        restartable_postgres.start()

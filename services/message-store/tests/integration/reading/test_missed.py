"""What a person has missed: all that was addressed to them behind their mailbox, in order, and nothing else."""

from typing import Any

from tlim_protocol.events import MailboxNote, StoredMessage
from tlim_protocol.registry import MsgType

GROUP = "6f1c5e0a-9d6b-4a53-8a3e-0d6c1b7f2a10"


async def test_what_was_addressed_to_somebody_comes_in_the_order_of_the_log(mailroom: Any, log: Any) -> None:
    to_me = await log.direct("bob", "alice")
    await log.direct("bob", "carol")
    await log.direct("alice", "bob")
    made = await log.group(GROUP, "bob", "alice")
    said = await log.say("bob", GROUP)
    await log.say("alice", GROUP)
    await log.tell("carol", GROUP, "bob")
    received = await log.tell("carol", GROUP, "alice", "bob")
    read = await log.say("bob", GROUP, MsgType.READ)
    recall = await log.direct("bob", "alice", MsgType.RECALL)
    to_myself = await log.direct("alice", "alice")
    await log.group("another group", "bob", "carol")
    assert await mailroom.seqs("alice") == [to_me, made, said, received, read, recall, to_myself]


async def test_an_event_is_the_delivery_that_was_missed_with_the_numbers_as_they_were_written(
    mailroom: Any, log: Any
) -> None:
    seq = await log.direct("bob", "alice", body=[{"text": "\x00 你"}], msg_id="m-1")
    (event,), _ = await mailroom.missed("alice")
    assert event == StoredMessage(
        seq=seq, stored_at=seq, recipients=["alice"], tells_sender=False,
        envelope={
            "from": "bob", "to": "alice", "msg_id": "m-1", "msg_type": MsgType.TEXT, "msg_time": "0",
            "version": "2.0.0", "body": [{"text": "\x00 你"}],
        },
    )  # fmt: skip
    await log.connection.execute('UPDATE messages SET body = \'[{"n": 1.10, "big": 1e400}]\'')
    answer = await mailroom.answer_missed(b'{"user_id": "alice"}')
    assert b'{"n":1.10,"big":1e400}' in answer.replace(b" ", b"")


async def test_what_has_come_after_all_is_not_missed(mailroom: Any, log: Any) -> None:
    first = await log.direct("bob", "alice")
    await mailroom.note(MailboxNote(user_id="alice", taken=first))
    page = await mailroom.page("alice")
    assert (page.events, page.more, page.up_to, page.is_cut) == ([], False, first, False)
    second = await log.direct("bob", "alice")
    assert await mailroom.seqs("alice") == [second]


async def test_a_recalled_message_is_left_out_and_its_recall_is_told(mailroom: Any, log: Any) -> None:
    await log.recall(await log.direct("bob", "alice"))
    recall = await log.direct("bob", "alice", MsgType.RECALL)
    assert await mailroom.seqs("alice") == [recall]


async def test_the_last_page_reaches_to_the_end_of_the_whole_log(mailroom: Any, log: Any) -> None:
    await log.direct("bob", "alice")
    newest = await log.direct("bob", "carol")
    _, last = await mailroom.missed("alice")
    assert (last.more, last.up_to) == (False, newest)
    _, nothing = await mailroom.missed("dave")
    assert nothing.up_to == newest

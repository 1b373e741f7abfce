"""What a person has missed: all that was addressed to them behind their mailbox, in order, and nothing else."""

import asyncio
from typing import Any

import asyncpg
import pytest
from message_store.mailbox.service import MAX_MISSED, MAX_RECEIPTS
from tlim_protocol.events import StoredMessage
from tlim_protocol.mailboxes import MailboxNote
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


# Everything that alice gets, from the seq 1 on, every other row to somebody else.
FILL = """
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
    SELECT n, 'u:alice:bob', 'bob', CASE WHEN n % 2 = 1 THEN 'alice' ELSE 'carol' END, 1, n, $2, $3, '', '[]', '', '', 0
    FROM generate_series((SELECT coalesce(max(seq), 0) FROM messages) + 1,
                         (SELECT coalesce(max(seq), 0) FROM messages) + 2 * $1) AS n"""


async def fill(log: Any, count: int, msg_type: MsgType = MsgType.TEXT) -> None:
    await log.connection.execute(FILL, count, msg_type.value, msg_type is MsgType.TEXT)


async def test_of_more_than_ten_thousand_only_the_newest_come(mailroom: Any, log: Any) -> None:
    await fill(log, MAX_MISSED + 30)
    await log.connection.execute("UPDATE messages SET recalled_at = 1 WHERE seq > 20000 AND seq <= 20020")
    events, last = await mailroom.missed("alice", limit=500)
    assert (len(events), last.is_cut, last.more) == (MAX_MISSED, True, False)
    newest = [seq for seq in range(1, 2 * MAX_MISSED + 60, 2) if not 20_000 < seq <= 20_020][-MAX_MISSED:]
    assert [event.seq for event in events] == newest


async def test_ten_thousand_come_whole(mailroom: Any, log: Any) -> None:
    await fill(log, MAX_MISSED)
    events, last = await mailroom.missed("alice", limit=500)
    assert ([event.seq for event in events], last.is_cut) == (list(range(1, 2 * MAX_MISSED, 2)), False)


@pytest.mark.parametrize("count", [MAX_RECEIPTS, MAX_RECEIPTS + 1])
@pytest.mark.parametrize("msg_type", [MsgType.READ, MsgType.RECEIVED])
async def test_receipts_come_if_there_are_up_to_a_hundred(
    mailroom: Any, log: Any, count: int, msg_type: MsgType
) -> None:
    await fill(log, 150)
    await fill(log, count, msg_type)
    await fill(log, 1)
    events, last = await mailroom.missed("alice")
    are_few = count <= MAX_RECEIPTS
    assert (len(events), last.receipts, last.is_cut) == (151 + (count if are_few else 0), are_few, False)
    assert len({event.seq for event in events}) == len(events)


async def test_between_thousands_of_receipts_no_message_is_skipped(mailroom: Any, log: Any) -> None:
    for _ in range(3):
        await fill(log, 1)
        await fill(log, 2_500, MsgType.READ)
    events, last = await mailroom.missed("alice")
    assert ([event.seq for event in events], last.up_to) == ([1, 5_003, 10_005], 3 * 5_002)


async def test_large_messages_make_short_pages_that_nats_takes(mailroom: Any, log: Any) -> None:
    large = [await log.direct("bob", "alice", body=[{"text": "x" * 600_000}]) for _ in range(4)]
    page = await mailroom.page("alice")
    assert ([event.seq for event in page.events], page.more, page.up_to) == (large[:2], True, large[1])
    assert await mailroom.seqs("alice") == large
    mailroom.server.max_payload = 1_000_000
    page = await mailroom.page("alice")
    assert ([event.seq for event in page.events], page.next, page.more) == (large[:1], large[0], True)
    assert await mailroom.seqs("alice") == large


async def test_a_page_is_one_snapshot_in_which_nothing_is_missing_up_to_its_end(
    mailroom: Any, log: Any, eventually: Any, database_url: str
) -> None:
    """A message that is stored between two statements of an answer is in none of it, and comes with the next."""
    expected = [await log.direct("bob", "alice") for _ in range(3)]
    blocker = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    blocking = blocker.transaction()
    await blocking.start()
    await blocker.execute("LOCK TABLE addressees IN ACCESS EXCLUSIVE MODE")  # only the page looks there
    asked = asyncio.create_task(mailroom.page("alice"))

    async def waits() -> None:
        assert await log.connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")

    await eventually(waits)
    late = await log.direct("bob", "alice")
    await blocking.rollback()
    await blocker.close()
    page = await asked
    assert ([event.seq for event in page.events], page.more, page.up_to) == (expected, False, expected[-1])
    assert [event.seq for event in (await mailroom.page("alice", after=page.up_to)).events] == [late]


async def test_a_sync_takes_what_it_has_given_out_of_the_mailbox_when_the_next_one_confirms_it(
    http: Any, mailroom: Any, log: Any
) -> None:
    seqs = [await log.direct("bob", "alice") for _ in range(5)]
    assert (await http.read("alice", "sync", limit=3))["next"] == seqs[2]
    assert await mailroom.seqs("alice") == seqs
    assert (await http.read("alice", "sync", after=seqs[2]))["next"] == seqs[4]
    assert await mailroom.seqs("alice") == seqs[3:]
    for cursor in (seqs[1], seqs[3], 2**63 - 1):  # no page that follows the mailbox has given these
        await http.read("alice", "sync", after=cursor, limit=1)
        assert await mailroom.seqs("alice") == seqs[3:]
    assert (await http.read("alice", "sync", after=seqs[2]))["next"] == seqs[4]
    await http.read("alice", "sync", after=seqs[4])
    assert await mailroom.seqs("alice") == []
    later = await log.direct("bob", "alice")
    assert await mailroom.seqs("alice") == [later]


async def test_a_device_that_begins_at_the_list_takes_nothing_out_that_no_device_has(
    http: Any, mailroom: Any, log: Any
) -> None:
    """The phone is away, and a new browser begins: what the phone has missed still comes to the phone."""
    missed = [await log.direct("bob", "alice") for _ in range(5)]
    cursor = (await http.read("alice", "conversations"))["sync_from"]
    for _ in range(3):
        cursor = (await http.read("alice", "sync", after=cursor))["next"]
        missed.append(await log.direct("bob", "alice"))
    assert await mailroom.seqs("alice") == missed

    await mailroom.note(MailboxNote(user_id="alice", sessions=["phone"], is_new=True))
    await mailroom.note(MailboxNote(user_id="alice", taken=missed[-1]))
    for _ in range(2):  # from now on the browser follows the mailbox
        later = await log.direct("bob", "alice")
        cursor = (await http.read("alice", "sync", after=cursor))["next"]
        assert cursor == later
    assert await mailroom.seqs("alice") == [later]


async def test_a_mailbox_that_goes_back_is_not_moved_by_a_cursor_that_was_given_before(
    http: Any, mailroom: Any, log: Any
) -> None:
    """The browser began at the third message. That a message before it reached nobody was learned later."""
    seqs = [await log.direct("bob", "alice") for _ in range(4)]
    await mailroom.note(MailboxNote(user_id="alice", taken=seqs[2]))
    assert (await http.read("alice", "sync", after=seqs[2]))["next"] == seqs[3]
    await mailroom.note(MailboxNote(user_id="alice", at_most=seqs[0]))
    await http.read("alice", "sync", after=seqs[3])
    assert await mailroom.seqs("alice") == seqs[1:]


async def test_a_sync_that_tells_nothing_new_writes_nothing(http: Any, log: Any) -> None:
    seq = await log.direct("bob", "alice")
    version = "SELECT xmin::text || ctid::text FROM mailboxes"
    for cursor in (0, seq):
        await http.read("alice", "sync", after=cursor)
        before = await log.connection.fetchval(version)
        await http.read("alice", "sync", after=cursor)
        assert await log.connection.fetchval(version) == before
    await http.read("alice", "sync")
    assert await log.connection.fetchval(version) == before
    await log.connection.execute("UPDATE delivery SET start_seq = $1", seq)
    for cursor in (0, seq):
        await http.read("bob", "sync", after=cursor)
    assert await log.connection.fetchval("SELECT count(*) FROM mailboxes") == 1


async def test_a_sync_beside_notes_keeps_sessions(http: Any, mailroom: Any, log: Any) -> None:
    seq = await log.direct("bob", "alice")
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"]))
    for cursor in (0, seq):
        await http.read("alice", "sync", after=cursor)
    (alice,) = await mailroom.present()
    assert (alice.sessions, await mailroom.seqs("alice")) == (["s1"], [])

"""The rules of receipts: what they may name, who hears of them, and that nothing is told twice."""

from typing import Any

import pytest
from message_store.models import Audience
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

RECEIPTS = [MsgType.RECEIVED, MsgType.READ]


@pytest.mark.parametrize("kind", RECEIPTS)
async def test_a_receipt_goes_to_the_author_as_it_was_sent(
    bench: Any, accepted: Any, report: Any, kind: MsgType
) -> None:
    await bench.record(accepted("m1"), accepted("m2"))
    assert await bench.outcome(report("r1", "m1", "m2", msg_type=kind)) == [["alice"]]
    event, row = bench.stored[-1], bench.archive.rows[-1]
    assert [element["msg_id"] for element in event.envelope.body] == ["m1", "m2"]
    assert (event.envelope.msg_from, event.envelope.msg_to) == ("bob", "alice")
    assert (row.is_chat, row.audience, row.recipient) == (False, Audience.RECIPIENT, "alice")


async def test_received_and_read_are_two_facts_about_one_message(bench: Any, accepted: Any, report: Any) -> None:
    await bench.record(accepted("m1"))
    await bench.record(report("r1", "m1"))
    assert (bench.archive.read, bench.archive.cursors) == ({(1, "bob"): False}, {})
    await bench.record(report("r2", "m1", msg_type=MsgType.READ))
    assert (bench.archive.read, bench.archive.cursors) == ({(1, "bob"): True}, {("bob", "u:alice:bob"): 1})


async def test_who_has_read_has_received_so_that_his_received_is_no_news(
    bench: Any, accepted: Any, report: Any
) -> None:
    await bench.record(accepted("m1"), report("r1", "m1", msg_type=MsgType.READ))
    assert await bench.outcome(report("r2", "m1")) == [[]]
    assert bench.archive.read == {(1, "bob"): True}


@pytest.mark.parametrize("kind", RECEIPTS)
@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_what_was_told_is_not_told_again_and_only_the_news_is_forwarded(
    bench: Any, accepted: Any, report: Any, kind: MsgType, is_one_batch: bool
) -> None:
    await bench.record(accepted("m1"), accepted("m2"))
    receipts = [report(f"r{number}", *names, msg_type=kind) for number, names in enumerate((["m1"], ["m1", "m2"]))]
    outcomes = await bench.outcome(*receipts) if is_one_batch else [(await bench.outcome(one))[0] for one in receipts]
    assert outcomes == [["alice"], ["alice"]]
    assert bench.stored[-1].envelope.body == [{"msg_id": "m2"}]
    assert bench.archive.rows[-1].body == '[{"msg_id":"m2"}]'
    assert await bench.outcome(report("r9", "m2", "m1", msg_type=kind)) == [[]]
    assert bench.archive.rows[-1].audience is Audience.NOBODY
    assert await bench.outcome(receipts[0]) == [[]]  # sent again: confirmed
    assert [event.is_news for event in bench.stored[-4:]] == [True, True, False, False]


async def test_receipts_that_name_very_many_messages_are_not_one_transaction(bench: Any, report: Any) -> None:
    names = [f"m{number}" for number in range(1_000)]
    assert set(await bench.outcome(*(report(f"r{number}", *names) for number in range(51)))) == {
        ErrorCode.MSG_ID_UNKNOWN
    }
    assert [count for count, _, _ in bench.counters.times] == [50, 1]


async def test_a_message_named_twice_is_told_once(bench: Any, accepted: Any, report: Any) -> None:
    await bench.record(accepted("m1"))
    await bench.record(report("r1", "m1", "m1"))
    assert bench.stored[-1].envelope.body == [{"msg_id": "m1"}]


@pytest.mark.parametrize("name", ["unknown", "own", "r0", "elsewhere", "in a group"])
async def test_a_receipt_is_about_messages_of_others_in_that_conversation(
    bench: Any, accepted: Any, report: Any, session: Any, to_group: Any, *, name: str
) -> None:
    bench.session_api.users = {"alice", "bob", "carol"}
    await bench.record(
        accepted("m1"), accepted("own", sender="bob"), accepted("elsewhere", msg_to="carol"), report("r0", "m1"),
        session(1, "alice", "bob"), to_group("in a group"),
    )  # fmt: skip
    assert await bench.outcome(report("r1", "m1", name, msg_type=MsgType.READ)) == [ErrorCode.MSG_ID_UNKNOWN]
    assert name in bench.rejected[-1].detail
    assert bench.rejected[-1].field == "msg_id"
    assert bench.archive.read == {(1, "bob"): False}  # nothing half done


async def test_two_who_never_talked_have_no_messages(bench: Any, report: Any) -> None:
    assert await bench.outcome(report("r1", "m1", msg_to="nobody")) == [ErrorCode.MSG_ID_UNKNOWN]
    assert not bench.session_api.questions


async def test_a_message_and_its_receipts_in_one_batch(bench: Any, accepted: Any, report: Any) -> None:
    assert await bench.outcome(accepted("m1"), report("r1", "m1"), report("r2", "m1", msg_type=MsgType.READ)) == [
        ["bob"],
        ["alice"],
        ["alice"],
    ]
    assert bench.archive.read == {(1, "bob"): True}


async def test_the_cursor_is_at_the_newest_message_that_was_read(bench: Any, accepted: Any, report: Any) -> None:
    await bench.record(accepted("m1"), accepted("m2"), accepted("m3"))
    await bench.record(report("r1", "m3", "m1", msg_type=MsgType.READ))
    assert bench.archive.cursors == {("bob", "u:alice:bob"): 3}


async def test_received_in_a_group_goes_to_the_authors_concerned(
    bench: Any, session: Any, to_group: Any, report: Any
) -> None:
    await bench.record(session(1, "alice", "bob", "carol"), to_group("m1"), to_group("m2", "carol"), to_group("m3"))
    assert await bench.outcome(report("r1", "m1", "m3", session_id="s1")) == [["alice"]]
    row = bench.archive.rows[-1]
    assert (row.audience, row.recipient, row.conversation_id) == (Audience.RECIPIENT, "alice", "s1")
    assert await bench.outcome(report("r2", "m2", "m1", session_id="s1")) == [["carol"]]
    await bench.record(session(2, "alice", "bob", "carol", "dave"), to_group("m4"), to_group("m5", "carol"))
    assert await bench.outcome(report("r3", "m5", "m4", session_id="s1")) == [["carol", "alice"]]
    row = bench.archive.rows[-1]
    assert (row.audience, row.recipient) == (Audience.ADDRESSEES, None)
    assert bench.archive.addressees == [("carol", row.seq), ("alice", row.seq)]


async def test_read_in_a_group_goes_to_all_others(bench: Any, session: Any, to_group: Any, report: Any) -> None:
    await bench.record(session(1, "alice", "bob", "carol"), to_group("m1"))
    read = report("r1", "m1", session_id="s1", msg_type=MsgType.READ)
    assert await bench.outcome(read) == [["alice", "carol"]]
    assert bench.archive.rows[-1].audience is Audience.MEMBERS
    assert bench.archive.cursors == {("bob", "s1"): 2}


@pytest.mark.parametrize("msg_type", [MsgType.RECEIVED, MsgType.READ])
@pytest.mark.parametrize(("members", "deleted"), [(["alice"], False), (["alice", "bob"], True), (["alice"], True)])
async def test_what_one_may_still_see_of_a_session_is_reported_and_told_to_nobody(
    bench: Any, session: Any, to_group: Any, report: Any, *, msg_type: MsgType, members: list[str], deleted: bool
) -> None:
    await bench.record(session(1, "alice", "bob", "carol"), to_group("m1"), session(2, *members, deleted=deleted))
    assert await bench.outcome(report("r1", "m1", session_id="s1", msg_type=msg_type)) == [[]]
    assert bench.archive.rows[-1].audience is Audience.NOBODY
    assert bench.archive.read == {(2, "bob"): msg_type is MsgType.READ}
    assert bench.archive.cursors == ({("bob", "s1"): 2} if msg_type is MsgType.READ else {})


async def test_what_was_said_after_one_left_cannot_be_reported(
    bench: Any, session: Any, to_group: Any, report: Any
) -> None:
    await bench.record(session(1, "alice", "bob"), session(2, "alice"), to_group("m1"))
    assert await bench.outcome(report("r1", "m1", session_id="s1")) == [ErrorCode.MSG_ID_UNKNOWN]


async def test_what_was_said_before_and_between_memberships_cannot_be_reported(
    bench: Any, session: Any, to_group: Any, report: Any
) -> None:
    await bench.record(session(1, "alice"), to_group("m1"), session(2, "alice", "bob"), to_group("m2"))
    await bench.record(session(3, "alice"), to_group("m3"), session(4, "alice", "bob"), to_group("m4"))
    outcomes = [
        (await bench.outcome(report(f"r{name}", name, session_id="s1")))[0] for name in ("m1", "m2", "m3", "m4")
    ]
    assert outcomes == [ErrorCode.MSG_ID_UNKNOWN, ["alice"], ErrorCode.MSG_ID_UNKNOWN, ["alice"]]


async def test_between_memberships_within_one_batch(bench: Any, session: Any, to_group: Any, report: Any) -> None:
    assert (await bench.outcome(
        session(1, "alice", "bob"), to_group("m1"), session(2, "alice"), to_group("m2"), session(3, "alice", "bob"),
        report("r1", "m1", session_id="s1"), report("r2", "m2", session_id="s1"),
    ))[-2:] == [["alice"], ErrorCode.MSG_ID_UNKNOWN]  # fmt: skip


async def test_a_msg_id_that_two_people_chose_names_the_messages_of_both(
    bench: Any, session: Any, to_group: Any, report: Any
) -> None:
    await bench.record(session(1, "alice", "bob", "carol"), to_group("m1"), to_group("m1", "carol"))
    assert await bench.outcome(report("r1", "m1", session_id="s1")) == [["alice", "carol"]]
    assert bench.archive.read == {(2, "bob"): False, (3, "bob"): False}

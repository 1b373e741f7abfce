"""The rules of groups: who may write, who hears of it, and what becomes of session events."""

from typing import Any

import pytest
from message_store import service
from tlim_protocol.errors import ErrorCode
from tlim_protocol.notices import newcomers
from tlim_protocol.registry import MsgType
from tlim_runtime.outages import DatabaseUnavailable


async def test_a_group_message_goes_to_every_member_but_the_sender_and_is_one_row(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob", "carol"))
    assert await bench.outcome(to_group("m1", "bob")) == [["alice", "carol"]]
    row = bench.archive.rows[-1]
    assert (row.conversation_id, row.recipient, row.audience, row.is_chat) == ("s1", None, 2, True)


async def test_who_is_made_a_member_writes_and_is_removed_in_one_batch(bench: Any, session: Any, to_group: Any) -> None:
    assert await bench.outcome(
        session(1, "alice", "bob"),
        to_group("m1", "bob"),
        session(2, "alice"),
        to_group("m2", "bob"),
        to_group("m3", "alice"),
    ) == [["alice", "bob"], ["alice"], ["alice", "bob"], ErrorCode.NOT_ALLOWED, []]


async def test_a_receiver_named_in_a_group_message_changes_nothing(bench: Any, session: Any, accepted: Any) -> None:
    await bench.record(session(1, "alice", "bob"))
    body = [{"session_id": "s1", "text": "hi"}]
    assert await bench.outcome(accepted("m1", MsgType.GROUP_TEXT, msg_to="dave", body=body)) == [["bob"]]
    assert not bench.session_api.questions


async def test_the_only_member_talks_to_nobody(bench: Any, session: Any, to_group: Any) -> None:
    await bench.record(session(1, "alice"))
    assert await bench.outcome(to_group("m1")) == [[]]
    assert bench.counters.total == 2


async def test_an_unknown_session_is_refused_after_session_api_was_asked(bench: Any, to_group: Any) -> None:
    assert await bench.outcome(to_group("m1"), to_group("m2")) == [ErrorCode.SESSION_UNKNOWN] * 2
    assert bench.session_api.asked_sessions == [{"s1"}]
    assert bench.rejected[0].field == "session_id"
    assert not bench.archive.rows


async def test_a_stranger_to_the_session_is_refused_after_session_api_was_asked(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob"))
    bench.session_api.told["s1"] = session(1, "alice", "bob")
    assert await bench.outcome(to_group("m1", "mallory"), to_group("m2")) == [ErrorCode.SESSION_UNKNOWN, ["bob"]]
    assert bench.session_api.asked_sessions == [{"s1"}]


@pytest.mark.parametrize("kind", ["text", "receipt", "recall"])
async def test_a_stranger_cannot_tell_an_open_session_from_a_deleted_one_and_from_none(
    bench: Any, session: Any, to_group: Any, report: Any, kind: str
) -> None:
    await bench.record(
        session(1, "alice", "bob", session_id="open"), to_group("m1", session_id="open"),
        session(1, "alice", "bob", session_id="gone"), to_group("m2", session_id="gone"),
        session(2, "alice", "bob", session_id="gone", deleted=True),
    )  # fmt: skip
    for session_id, name in (("open", "m1"), ("gone", "m2"), ("none", "m3")):
        if kind == "text":
            item = to_group(f"x {session_id}", "mallory", session_id)
        else:
            msg_type = MsgType.READ if kind == "receipt" else MsgType.RECALL
            item = report(f"x {session_id}", name, sender="mallory", msg_type=msg_type, session_id=session_id)
        await bench.record(item)
    answers = {(event.code, event.detail, event.field) for event in bench.rejected}
    assert answers == {(ErrorCode.SESSION_UNKNOWN, "there is no such session", "session_id")}
    assert bench.session_api.asked_sessions == [{"open"}, {"gone"}, {"none"}]


async def test_who_was_in_a_session_is_told_that_he_is_not_any_more(bench: Any, session: Any, to_group: Any) -> None:
    await bench.record(session(1, "alice", "bob"), session(2, "alice"))
    assert await bench.outcome(to_group("m1", "bob")) == [ErrorCode.NOT_ALLOWED]
    await bench.record(session(3, "alice", deleted=True))
    assert await bench.outcome(to_group("m2", "bob"), to_group("m3")) == [ErrorCode.SESSION_UNKNOWN] * 2
    assert [event.detail for event in bench.rejected[1:]] == ["there is no such session", "the session is deleted"]


async def test_a_first_message_that_overtakes_its_session_is_stored_behind_the_notice(
    bench: Any, session: Any, to_group: Any
) -> None:
    bench.session_api.told["s1"] = session(1, "alice", "bob")
    assert await bench.outcome(to_group("m1")) == [["alice", "bob"], ["bob"]]
    assert [row.msg_type for row in bench.archive.rows] == [MsgType.SESSION_ADDED, MsgType.GROUP_TEXT]
    notice, text = bench.archive.rows
    assert [event.seq for event in bench.stored] == [notice.seq, text.seq]
    assert notice.seq < text.seq
    assert await bench.outcome(session(1, "alice", "bob")) == []  # the event itself, late


async def test_a_member_whose_joining_was_not_heard_of_may_write(bench: Any, session: Any, to_group: Any) -> None:
    await bench.record(session(1, "alice"))
    bench.session_api.told["s1"] = session(3, "alice", "bob")
    assert await bench.outcome(to_group("m1", "bob")) == [["alice", "bob"], ["alice"]]


async def test_a_session_that_comes_into_question_through_an_answer_about_another_is_asked_about_too(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob"))
    bench.session_api.told = {"s1": session(2, "bob", "carol"), "s2": session(1, "alice", "bob", session_id="s2")}
    outcome = await bench.outcome(to_group("m1", "carol"), to_group("m2"), to_group("m2", session_id="s2"))
    assert outcome == [["bob", "carol", "alice"], ["bob"], ErrorCode.NOT_ALLOWED, ["alice", "bob"], ["bob"]]
    assert bench.session_api.asked_sessions == [{"s1"}, {"s2"}]


async def test_without_an_answer_about_the_session_the_sender_shall_try_again(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob"))
    bench.session_api.is_away = True
    assert await bench.outcome(to_group("m1", "carol"), to_group("m2")) == [ErrorCode.UNAVAILABLE, ["bob"]]


async def test_who_may_write_is_not_asked_about(bench: Any, session: Any, to_group: Any) -> None:
    bench.session_api.is_away = True
    await bench.record(session(1, "alice", "bob"), to_group("m1"))
    await bench.record(to_group("m2"))
    assert not bench.session_api.asked_sessions


async def test_a_deleted_session_takes_no_messages_and_keeps_its_members(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob"))
    deleted = session(2, "alice", "bob", deleted=True, msg_type=MsgType.SESSION_DELETED)
    assert await bench.outcome(deleted, to_group("m1")) == [["alice", "bob"], ErrorCode.SESSION_UNKNOWN]
    assert set(bench.archive.members.values()) == {None}


async def test_a_member_is_one_from_his_notice_on_and_the_notice_of_his_leaving_is_the_last_he_sees(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob"), to_group("m1"), session(2, "alice"), session(3, "alice", "bob"))
    assert bench.archive.members == {
        ("s1", "alice", 1): None, ("s1", "bob", 1): 3, ("s1", "bob", 4): None,
    }  # fmt: skip


async def test_an_event_that_came_before_or_is_older_than_what_is_known_changes_nothing(
    bench: Any, session: Any
) -> None:
    await bench.record(session(2, "alice", "bob"))
    assert await bench.outcome(session(2, "alice", "bob"), session(1, "alice")) == []
    assert len(bench.archive.rows) == 1


async def test_a_notice_says_what_changed_and_goes_to_those_who_were_removed_too(bench: Any, session: Any) -> None:
    await bench.record(session(1, "alice", "bob", "carol"))
    assert await bench.outcome(session(2, "alice", "dave", "bob", actor="bob")) == [["alice", "bob", "dave", "carol"]]
    event = bench.stored[-1]
    (told,) = event.envelope.body
    assert (event.envelope.msg_from, event.envelope.msg_type, event.reply_to) == ("bob", MsgType.SESSION_CHANGED, None)
    assert (told["session_id"], told["session_name"], told["session_valid"]) == ("s1", "the three", 0)
    assert (told["actor"], told["version"], told["session_modify_time"]) == ("bob", 2, "1699999999990")
    assert told["subscribers"] == [{"user_id": "alice"}, {"user_id": "bob"}, {"user_id": "dave"}]
    assert newcomers(told) == {"dave"}
    assert (told["added"], told["removed"]) == ([{"user_id": "dave"}], [{"user_id": "carol"}])
    row = bench.archive.rows[-1]
    assert (row.sender, row.msg_id, row.is_chat) == ("", "s1:2", False)


async def test_changes_that_were_missed_are_told_with_the_next_one(bench: Any, session: Any) -> None:
    await bench.record(session(1, "alice", "bob"))
    await bench.record(session(4, "alice", "carol", added=["dave"], removed=[]))
    (told,) = bench.stored[-1].envelope.body
    assert (told["added"], told["removed"]) == ([{"user_id": "carol"}], [{"user_id": "bob"}])


async def test_a_change_of_thousands_is_a_short_row_with_their_numbers(bench: Any, session: Any) -> None:
    people = [f"user{number}" for number in range(10_000)]
    assert await bench.outcome(session(1, *people)) == [people]
    (told,) = bench.stored[-1].envelope.body
    assert not {"subscribers", "added"} & told.keys()
    assert (told["subscribers_count"], told["added_count"], told["removed"]) == (10_000, 10_000, [])
    await bench.record(session(2, *people[:100], "carol"))
    (told,) = bench.stored[-1].envelope.body
    assert (len(told["subscribers"]), told["removed_count"], set(newcomers(told))) == (101, 9_900, {"carol"})
    assert len(bench.archive.rows[-1].body) < 4_000


async def test_a_roster_is_read_once_and_again_after_a_failure(bench: Any, session: Any, to_group: Any) -> None:
    await bench.record(session(1, "alice", "bob"))
    await bench.record(to_group("m1"))
    assert bench.archive.rosters_read == [{"s1"}]
    bench.archive.bad.add("m2")
    await bench.record(to_group("m2"))
    await bench.record(to_group("m3"))
    assert bench.archive.rosters_read == [{"s1"}] * 2


async def test_a_session_that_another_store_has_changed_is_read_again_and_others_are_not(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob"), session(1, "alice", "bob", session_id="s2"))
    bench.archive.sessions["s1"] = session(2, "alice", "carol")
    bench.archive.members = {("s1", "alice", 1): None, ("s1", "carol", 3): None}
    bench.archive.rosters_read.clear()
    assert await bench.outcome(to_group("m1"), to_group("m2", session_id="s2")) == [["carol"], ["bob"]]
    assert bench.archive.rosters_read == [{"s1"}]


async def test_a_batch_that_other_stores_overtake_again_and_again_is_not_refused(
    bench: Any, session: Any, to_group: Any
) -> None:
    await bench.record(session(1, "alice", "bob"))
    bench.archive.overtaken = service.MAX_OVERTAKEN
    assert await bench.outcome(to_group("m1")) == [["bob"]]
    bench.archive.overtaken = service.MAX_OVERTAKEN + 1
    with pytest.raises(DatabaseUnavailable):
        await bench.record(to_group("m2"))
    assert await bench.outcome(to_group("m2")) == [["bob"]]


async def test_what_the_database_refuses_does_not_keep_a_session_from_its_members(
    bench: Any, session: Any, to_group: Any
) -> None:
    bench.archive.bad.add("m1")
    reasons = await bench.record(session(1, "alice", "bob"), to_group("m1"), to_group("m2", "bob"))
    assert reasons == [None, "no room for m1", None]
    assert [event.recipients for event in bench.stored] == [["alice", "bob"], ["alice"]]


@pytest.mark.parametrize("number", range(1, 5))
async def test_every_kind_of_group_message_is_stored(bench: Any, session: Any, accepted: Any, number: int) -> None:
    await bench.record(session(1, "alice", "bob"))
    body = [{"session_id": "s1", "file_id": "f1", "title": "pay"}]
    assert await bench.outcome(accepted("m1", MsgType(f"MTS-00{number}"), msg_to=None, body=body)) == [["bob"]]

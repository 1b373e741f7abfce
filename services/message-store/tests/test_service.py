"""The rules of a batch of messages between two people, and what no bridge accepts."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_store import service
from message_store.flaws import flaw_of
from structlog.testing import capture_logs
from tlim_protocol.envelope import read_envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import CLIENT_TYPES, REGISTRY, MsgType

NOW = 1_700_000_000_000


async def test_a_new_message_is_delivered_to_its_receiver(bench: Any, accepted: Any) -> None:
    assert await bench.record(accepted()) == [None]
    (event,) = bench.stored
    assert (event.seq, event.stored_at, event.recipients) == (1, NOW, ["bob"])
    assert (event.reply_to, event.stanza_id) == ("alice@im.example/web", "s1")
    assert bench.counters.total == 1


async def test_a_message_to_oneself_is_delivered_to_oneself(bench: Any, accepted: Any) -> None:
    await bench.record(accepted(msg_to="alice"))
    assert bench.stored[0].recipients == ["alice"]


async def test_a_message_that_came_before_is_confirmed_with_its_first_seq_and_not_delivered(
    bench: Any, accepted: Any
) -> None:
    await bench.record(accepted(), accepted("m2"))
    await bench.record(accepted())
    assert [(event.seq, event.recipients) for event in bench.stored] == [(1, ["bob"]), (2, ["bob"]), (1, [])]
    assert bench.stored[-1].after_seq == 2
    assert bench.counters.total == 2


async def test_two_copies_in_one_batch_make_one_delivery_and_one_confirmation(bench: Any, accepted: Any) -> None:
    await bench.record(accepted(), accepted())
    assert [(event.seq, event.recipients) for event in bench.stored] == [(1, ["bob"]), (1, [])]


async def test_a_missing_msg_time_becomes_the_time_of_receipt_in_record_and_delivery(bench: Any, accepted: Any) -> None:
    await bench.record(accepted(msg_time=None))
    assert bench.archive.rows[0].msg_time == str(NOW - 5)
    assert bench.stored[0].envelope.msg_time == str(NOW - 5)


async def test_one_question_per_batch_names_senders_and_receivers_of_new_conversations_only(
    bench: Any, accepted: Any
) -> None:
    bench.archive.made.add("u:alice:bob")
    await bench.record(accepted("m1"), accepted("m2", msg_to="carol"), accepted("m3", msg_to="dave"))
    assert bench.session_api.questions == [({"alice"}, {"carol", "dave"})]


async def test_a_known_conversation_asks_nobody(bench: Any, accepted: Any) -> None:
    bench.archive.made.add("u:alice:bob")
    bench.session_api.users = None
    await bench.record(accepted())
    assert [event.recipients for event in bench.stored] == [["bob"]]
    assert not bench.session_api.questions


async def test_a_first_message_to_nobody_is_refused_and_its_neighbours_are_stored(bench: Any, accepted: Any) -> None:
    await bench.record(accepted("m1"), accepted("m2", msg_to="nobody"), accepted("m3"))
    assert [event.envelope.msg_id for event in bench.stored] == ["m1", "m3"]
    (event,) = bench.rejected
    assert (event.code, event.field, event.msg_id) == (ErrorCode.USER_UNKNOWN, "to", "m2")
    assert event.after_seq == 1
    assert "u:alice:nobody" not in bench.archive.made
    assert bench.counters.codes == [ErrorCode.USER_UNKNOWN]


async def test_without_a_directory_only_first_messages_are_refused(bench: Any, accepted: Any) -> None:
    bench.archive.made.add("u:alice:bob")
    bench.session_api.users = None
    await bench.record(accepted("m1"), accepted("m2", msg_to="carol"))
    assert [event.envelope.msg_id for event in bench.stored] == ["m1"]
    assert [(event.code, event.msg_id) for event in bench.rejected] == [(ErrorCode.UNAVAILABLE, "m2")]


async def test_what_the_database_refuses_is_reported_and_published_nowhere(bench: Any, accepted: Any) -> None:
    bench.archive.bad.add("m2")
    assert await bench.record(accepted("m1"), accepted("m2"), accepted("m3")) == [None, "no room for m2", None]
    assert [event.envelope.msg_id for event in bench.stored] == ["m1", "m3"]
    assert not bench.rejected


async def test_what_another_writer_stores_again_and_again_before_us_stops_no_other(bench: Any, accepted: Any) -> None:
    bench.archive.outdated.add("m2")
    assert await bench.record(accepted("m1"), accepted("m2"), accepted("m3")) == [None, "m2 is there", None]
    assert [event.envelope.msg_id for event in bench.stored] == ["m1", "m3"]


async def test_a_message_on_which_the_rules_fail_stops_no_other(bench: Any, accepted: Any) -> None:
    await bench.record(accepted("m1"))
    bench.archive.rows[0] = bench.archive.rows[0]._replace(body='["no end')
    with capture_logs() as lines:
        traced = accepted("m1", traceparent=f"00-{'4b' * 16}-{'0a' * 8}-01")
        reasons = await bench.record(accepted("m2"), traced, accepted("m3"))
    assert (reasons[0], reasons[2]) == (None, None)
    assert [line["trace_ids"] for line in lines] == [["4b" * 16]] * 3
    assert [line["msg_ids"] for line in lines] == [["m2", "m1", "m3"], ["m1", "m3"], ["m1"]]
    assert reasons[1].startswith("the rules fail on it")
    assert [event.envelope.msg_id for event in bench.stored] == ["m1", "m2", "m3"]


async def test_each_transaction_of_a_batch_is_published_before_the_next_one_begins(
    bench: Any, accepted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_NAMED", 2)
    published: list[int] = []
    draw = bench.archive.draw

    async def drawing(count: int) -> Any:
        published.append(bench.publication.seq)
        return await draw(count)

    bench.archive.draw = drawing
    await bench.record(*(accepted(f"m{number}") for number in range(6)))
    assert published == [0, 2, 4]
    assert [count for count, _, _ in bench.counters.times] == [2, 2, 2]


async def test_files_of_a_message_are_kept_for_the_question_who_shared_them(bench: Any, accepted: Any) -> None:
    await bench.record(accepted(msg_type=MsgType.IMAGE, body=[{"file_id": "f1"}, {"file_id": "f2"}, {"file_id": "f1"}]))
    assert bench.archive.files == [("f1", 1), ("f2", 1)]


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({}, None),
        ({"msg_type": MsgType.GROUP_TEXT, "msg_to": None}, None),
        ({"msg_type": MsgType.GROUP_TEXT, "msg_to": ""}, None),
        ({"msg_type": MsgType.GROUP_TODO, "msg_to": "The three of us"}, None),
        ({"msg_type": MsgType.READ, "msg_to": "", "body": [{"msg_id": "m1", "session_id": "s1"}]}, None),
        ({"msg_type": MsgType.READ, "msg_to": "", "body": [{"msg_id": "m1"}]}, "no user id"),
        ({"msg_from": "mallory"}, "another sender"),
        ({"msg_type": MsgType.FILE_UPLOADED}, "the server only"),
        ({"msg_to": "Bob"}, "no user id"),
        ({"msg_to": "b\x00b"}, "no user id"),
        ({"body": []}, "body is empty"),
        ({"body": [{"text": ""}]}, "text is empty"),
        ({"msg_type": MsgType.IMAGE, "body": [{}]}, "file_id is empty"),
        ({"msg_to": None}, "neither a receiver nor a session"),
    ],
)
def test_what_no_bridge_accepts_has_a_flaw(accepted: Any, changes: dict[str, Any], flaw: str | None) -> None:
    found = flaw_of(accepted(**changes))
    assert found is None if flaw is None else flaw in (found or "")


@given(
    msg_type=st.sampled_from(CLIENT_TYPES),
    fields=st.dictionaries(st.sampled_from(["to", "version", "msg_time"]), st.text(max_size=12) | st.none()),
    session_id=st.none() | st.text(min_size=1, max_size=12),
    more=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_bridge_accepts_has_no_flaw(
    accepted: Any, msg_type: MsgType, fields: dict[str, Any], session_id: str | None, more: dict[str, Any]
) -> None:
    mark = {} if session_id is None else {"session_id": session_id}
    element = {**more, **REGISTRY[msg_type].example, **mark}
    raw = {"to": "bob", **fields, "from": "alice", "msg_id": "m1", "msg_type": msg_type, "body": [element]}
    try:
        envelope = read_envelope(write_json(raw), "alice")
    except TlimError:
        return
    assert flaw_of(accepted().model_copy(update={"envelope": envelope})) is None


async def test_the_times_of_a_batch_are_told_after_it_is_published(bench: Any, accepted: Any) -> None:
    await bench.record(accepted("m1"), accepted("m2"))
    assert bench.counters.times == [(2, bench.now, bench.now)]

"""What comes again under a msg_id is confirmed when it is the same message, and refused when it is another one."""

from typing import Any

import pytest
from tlim_protocol.errors import ErrorCode
from tlim_protocol.registry import MsgType

batching = pytest.mark.parametrize("is_one_batch", [True, False])


async def outcome_of_both(bench: Any, first: Any, second: Any, *, is_one_batch: bool) -> Any:
    """Return what became of the second message."""
    if is_one_batch:
        return (await bench.outcome(first, second))[-1]
    await bench.record(first)
    return (await bench.outcome(second))[0]


@batching
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([{"text": "hi", "a": 1}], [{"a": 1, "text": "hi"}]),  # a client may write its keys in any order
        ([{"text": "hi", "n": 100.0}], [{"text": "hi", "n": 100}]),
        ([{"text": "hi"}, {"text": "you"}], [{"text": "hi"}, {"text": "you"}]),
    ],
)
async def test_the_same_in_type_conversation_and_body_is_confirmed(
    bench: Any, accepted: Any, first: Any, second: Any, is_one_batch: bool
) -> None:
    again = accepted(body=second, msg_time="2", version="3.0.0")
    assert await outcome_of_both(bench, accepted(body=first), again, is_one_batch=is_one_batch) == []
    assert len(bench.archive.rows) == 1


@batching
@pytest.mark.parametrize(
    "changes",
    [
        {"body": [{"text": "another"}]},
        {"body": [{"text": "hello,world"}, {"text": "more"}]},
        {"body": [{"text": "hello,world", "n": True}]},
        {"body": [{"text": "hello,world" * 1_000}]},
        {"msg_to": "carol"},
        {"msg_type": MsgType.FILE, "body": [{"file_id": "f1"}]},
        {"msg_type": MsgType.GROUP_TEXT, "body": [{"session_id": "s1", "text": "hello,world"}]},
        {"msg_type": MsgType.RECALL, "body": [{"msg_id": "m1"}]},
        {"msg_type": MsgType.READ, "body": [{"msg_id": "m1"}]},
    ],
)
async def test_another_message_under_the_same_msg_id_is_refused_and_nothing_of_it_happens(
    bench: Any, accepted: Any, changes: Any, is_one_batch: bool
) -> None:
    bench.session_api.users = {"bob", "carol"}
    refused = await outcome_of_both(bench, accepted(), accepted(**changes), is_one_batch=is_one_batch)
    assert refused is ErrorCode.FIELD_INVALID
    assert (bench.rejected[0].field, bench.rejected[0].msg_id) == ("msg_id", "m1")
    assert [row.msg_type for row in bench.archive.rows] == [MsgType.TEXT]
    assert not bench.archive.recalled
    assert not bench.archive.read


@batching
async def test_a_recalled_message_has_no_body_to_compare_with(bench: Any, accepted: Any, is_one_batch: bool) -> None:
    recall = accepted("r1", MsgType.RECALL, body=[{"msg_id": "m1"}])
    again = [accepted(body=[{"text": "whatever"}]), accepted(msg_to="carol")]
    if is_one_batch:
        outcomes = (await bench.outcome(accepted(), recall, *again))[2:]
    else:
        await bench.record(accepted())
        await bench.record(recall)
        outcomes = await bench.outcome(*again)
    assert outcomes == [[], ErrorCode.FIELD_INVALID]


@batching
@pytest.mark.parametrize("msg_type", [MsgType.RECEIVED, MsgType.READ])
async def test_a_receipt_of_which_only_a_part_was_news_is_confirmed_as_it_was_sent(
    bench: Any, accepted: Any, report: Any, msg_type: MsgType, is_one_batch: bool
) -> None:
    await bench.record(accepted("m1"), accepted("m2"), report("r1", "m1", msg_type=msg_type))
    both = report("r2", "m1", "m2", msg_type=msg_type)
    assert await outcome_of_both(bench, both, both, is_one_batch=is_one_batch) == []
    assert await bench.outcome(report("r2", "m2", msg_type=msg_type)) == [ErrorCode.FIELD_INVALID]


async def test_what_is_far_longer_than_what_comes_again_is_not_read(bench: Any, accepted: Any) -> None:
    await bench.record(accepted(body=[{"text": "long" * 10_000}]))
    assert await bench.outcome(accepted(body=[{"text": "short"}])) == [ErrorCode.FIELD_INVALID]
    assert bench.archive.sent_read == []

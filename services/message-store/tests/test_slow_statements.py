"""A message for which the database takes too long is refused, and stops nobody else's."""

from contextlib import suppress
from typing import Any

import pytest
from message_store.service import MAX_TOO_SLOW
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs
from tlim_protocol.errors import ErrorCode
from tlim_runtime.outages import DatabaseUnavailable


async def test_a_message_that_takes_too_long_is_refused_and_its_neighbours_are_stored(
    bench: Any, accepted: Any
) -> None:
    bench.archive.slow.add("m2")
    assert await bench.record(*(accepted(f"m{number}") for number in range(5))) == [None] * 5
    assert [event.envelope.msg_id for event in bench.stored] == ["m0", "m1", "m3", "m4"]
    (told,) = bench.rejected
    assert (told.code, told.msg_id, told.reply_to) == (ErrorCode.UNAVAILABLE, "m2", "alice@im.example/web")
    assert told.after_seq == bench.stored[-1].seq
    assert bench.counters.codes == [ErrorCode.UNAVAILABLE]


async def test_a_message_that_takes_too_long_is_logged_with_its_own_trace(bench: Any, accepted: Any) -> None:
    bench.archive.slow.add("m1")
    with capture_logs() as lines, bound_contextvars(trace_id="of the batch"):
        await bench.record(accepted("m1", traceparent=f"00-{'4b' * 16}-{'0a' * 8}-01"), accepted("m2"))
    (line,) = lines
    assert (line["event"], line["msg_id"], line["trace_id"]) == ("too slow to be stored", "m1", "4b" * 16)


async def test_a_slow_message_that_comes_again_at_once_costs_nothing(bench: Any, accepted: Any) -> None:
    bench.archive.slow.add("m2")
    await bench.record(accepted("m1"), accepted("m2"), accepted("m3"))
    cancelled = bench.archive.cancelled
    await bench.record(accepted("m4"), accepted("m2"), accepted("m5"))
    assert bench.archive.cancelled == cancelled
    assert [event.envelope.msg_id for event in bench.stored] == ["m1", "m3", "m4", "m5"]
    assert [event.msg_id for event in bench.rejected] == ["m2", "m2"]


async def test_a_stall_that_one_message_meets_is_not_held_against_it(bench: Any, accepted: Any) -> None:
    bench.archive.slow.add("m1")
    assert await bench.outcome(accepted("m1")) == [ErrorCode.UNAVAILABLE]
    bench.archive.slow.clear()
    assert await bench.outcome(accepted("m1")) == [["bob"]]


async def test_a_stall_at_which_an_outage_begins_is_not_held_against_a_lone_message(bench: Any, accepted: Any) -> None:
    bench.archive.slow = {"m1", "x"}
    await bench.record(accepted("m0"), accepted("x"))  # from now on x is known
    write = bench.archive.write

    async def breaking(writes: Any) -> None:
        if any(row.msg_id == "m3" for row in writes.rows):
            raise DatabaseUnavailable("gone")
        await write(writes)

    bench.archive.write = breaking
    with suppress(DatabaseUnavailable):
        await bench.record(accepted("m1"), accepted("x"), accepted("m3"))
    bench.archive.write = write
    bench.archive.slow.clear()
    assert await bench.outcome(accepted("m1")) == [["bob"]]


async def test_a_batch_with_many_slow_messages_is_stored_after_some_tries(bench: Any, accepted: Any) -> None:
    messages = [accepted(f"m{number}") for number in range(300)]
    bench.archive.slow = {f"m{number}" for number in range(0, 300, 100)}
    tries = 0
    while True:
        tries, before = tries + 1, bench.archive.cancelled
        try:
            await bench.record(*messages)
        except DatabaseUnavailable:
            assert bench.archive.cancelled - before == MAX_TOO_SLOW + 1
        else:
            break
    assert tries <= len(bench.archive.slow)
    assert len(bench.archive.rows) == 297
    assert {event.msg_id for event in bench.rejected} == bench.archive.slow


async def test_many_slow_messages_end_although_each_cancellation_takes_its_time(bench: Any, accepted: Any) -> None:
    messages = [accepted(f"m{number}") for number in range(500)]
    bench.archive.slow = {"m50", "m200", "m350", "m450"}
    for _ in range(5):
        with suppress(DatabaseUnavailable):
            await bench.record(*messages)
    assert await bench.record(*messages) == [None] * 500
    assert len(bench.archive.rows) == 496


async def test_what_is_stored_beside_a_slow_message_is_delivered_before_the_slow_one_is_found(
    bench: Any, accepted: Any
) -> None:
    bench.archive.slow.add("m2")
    delivered: list[set[str]] = []
    write = bench.archive.write

    async def writing(writes: Any) -> None:
        delivered.append({event.envelope.msg_id for event in bench.stored})
        await write(writes)

    bench.archive.write = writing
    await bench.record(*(accepted(f"m{number}") for number in range(4)))
    assert delivered == [set(), set(), {"m0", "m1"}, {"m0", "m1"}, {"m0", "m1"}]
    assert [event.envelope.msg_id for event in bench.stored] == ["m0", "m1", "m3"]


async def test_a_database_that_is_slow_altogether_is_not_asked_for_each_message(bench: Any, accepted: Any) -> None:
    messages = [accepted(f"m{number}") for number in range(500)]
    bench.archive.slow = {message.envelope.msg_id for message in messages}
    with pytest.raises(DatabaseUnavailable):
        await bench.record(*messages)
    assert bench.archive.cancelled == MAX_TOO_SLOW + 1
    assert not bench.publication.events


async def test_a_change_of_a_session_that_takes_too_long_is_waited_for(bench: Any, session: Any) -> None:
    """Nobody would send it again, and who may write to the session depends on it."""
    bench.archive.slow_sessions = True
    with pytest.raises(DatabaseUnavailable):
        await bench.record(session(1, "alice", "bob"))
    bench.archive.slow_sessions = False
    assert await bench.outcome(session(1, "alice", "bob")) == [["alice", "bob"]]

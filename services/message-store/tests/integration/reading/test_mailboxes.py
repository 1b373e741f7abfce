"""Notes about mailboxes: where each stands, who is present; the same note twice changes nothing."""

import asyncio
import json
import time
from itertools import count
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_store.mailbox import service
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import LivePerson, MailboxNote


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def taken(mailroom: Any, user_id: str) -> int:
    """Where a mailbox stands, as the first page tells."""
    page = await mailroom.page(user_id, limit=1)
    return int(page.events[0].seq - 1 if page.events else page.up_to)


async def written(log: Any) -> list[tuple[Any, ...]]:
    rows = await log.connection.fetch("SELECT user_id, taken_seq, sessions, live_since FROM mailboxes ORDER BY user_id")
    return [tuple(row) for row in rows]


@pytest.fixture
def fill(log: Any) -> Any:
    """Give everybody named ten messages, with the seqs 1 to 10."""

    async def write(user_id: str = "alice") -> list[int]:
        return [await log.direct("bob", user_id) for _ in range(10)]

    return write


async def test_somebody_who_was_never_seen_has_missed_what_came_since_the_beginning(
    mailroom: Any, log: Any, fill: Any
) -> None:
    seqs = await fill()
    await log.connection.execute("UPDATE delivery SET start_seq = $1", seqs[3])
    assert await mailroom.seqs("alice") == seqs[4:]
    assert await written(log) == []


async def test_who_is_present_has_the_sessions_of_the_last_note(mailroom: Any, fill: Any) -> None:
    seqs = await fill()
    await mailroom.note(
        MailboxNote(user_id="alice", sessions=["s1", "s2"]), MailboxNote(user_id="bob", sessions=["s3"]),
        MailboxNote(user_id="carol", sessions=["s4"]),
    )  # fmt: skip
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s2"]), MailboxNote(user_id="bob"))
    assert [(one.user_id, one.sessions) for one in await mailroom.present(limit=1)] == [
        ("alice", ["s2"]), ("carol", ["s4"])
    ]  # fmt: skip
    assert await mailroom.seqs("alice") == seqs


async def test_a_mailbox_moves_to_what_the_devices_confirmed_when_they_are_gone(
    mailroom: Any, log: Any, fill: Any
) -> None:
    seqs = await fill()
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"], is_new=True, taken=seqs[2]))
    assert await taken(mailroom, "alice") == 0
    await mailroom.note(MailboxNote(user_id="alice", taken=seqs[5]))
    assert await taken(mailroom, "alice") == seqs[5]
    await mailroom.note(MailboxNote(user_id="alice", taken=seqs[2]))
    assert await written(log) == [("alice", seqs[5], [], None)]


async def test_a_mailbox_goes_back_to_a_message_that_reached_no_session(mailroom: Any, fill: Any) -> None:
    seqs = await fill()
    await mailroom.note(MailboxNote(user_id="alice", taken=seqs[5], at_most=seqs[3] - 1))
    assert await mailroom.seqs("alice") == seqs[3:]
    await mailroom.note(MailboxNote(user_id="alice", at_most=seqs[7] - 1))
    assert await mailroom.seqs("alice") == seqs[3:]
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"], at_most=seqs[1] - 1))
    assert await mailroom.seqs("alice") == seqs[1:]


async def test_when_nobody_knows_what_arrived_only_what_has_settled_counts(mailroom: Any, log: Any, fill: Any) -> None:
    seqs = await fill()
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"]), MailboxNote(user_id="carol", sessions=["s2"]))
    await log.connection.execute("UPDATE mailboxes SET live_since = 1_000 WHERE user_id = 'alice'")
    await mailroom.note(
        MailboxNote(user_id="alice"), MailboxNote(user_id="carol"), MailboxNote(user_id="dave"),
        settled_seq=seqs[4], settled_at=1_000,
    )  # fmt: skip
    assert await written(log) == [("alice", seqs[4], [], None), ("carol", 0, [], None), ("dave", 0, [], None)]


async def test_a_request_that_is_taken_after_a_newer_one_changes_nothing(mailroom: Any, log: Any, fill: Any) -> None:
    """An instance of the store may hang with it, and the bridge has asked another one meanwhile."""
    seqs, shard = await fill(), delivery_shard("alice")
    came, gone = MailboxNote(user_id="alice", sessions=["s1"]), MailboxNote(user_id="alice", taken=seqs[2])
    await mailroom.note_in(shard, came, number=2)
    await mailroom.note_in(shard, came, gone, number=3)
    for number in (3, 2):
        assert not (await mailroom.note_in(shard, came, number=number)).is_outdated
    assert await written(log) == [("alice", seqs[2], [], None)]
    await mailroom.present()
    await mailroom.note_in(shard, came, number=1)
    assert (await mailroom.live(shard)).people == [LivePerson(user_id="alice", sessions=["s1"])]


async def test_what_has_settled_never_goes_back_and_counts_in_later_notes(mailroom: Any, log: Any, fill: Any) -> None:
    seqs = await fill()
    await mailroom.note(settled_seq=seqs[4], settled_at=1_000)
    await mailroom.note(settled_seq=seqs[2], settled_at=500)
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"]))
    await log.connection.execute("UPDATE mailboxes SET live_since = 1_000")
    await mailroom.note(MailboxNote(user_id="alice"))
    assert await written(log) == [("alice", seqs[4], [], None)]


async def test_sessions_that_may_resume_are_kept_and_their_person_is_live_anew_when_they_do(
    mailroom: Any, log: Any, fill: Any
) -> None:
    seqs = await fill()
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"]))
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"], is_stale=True, taken=seqs[1]))
    assert await written(log) == [("alice", seqs[1], ["s1"], None)]
    before = now_ms()
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"]))
    ((_, at, sessions, live_since),) = await written(log)
    assert (at, sessions, live_since >= before) == (seqs[1], ["s1"], True)


async def test_live_since_stays_with_a_further_session_and_begins_anew_after_a_catch_up(
    mailroom: Any, log: Any
) -> None:
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"]))
    await log.connection.execute("UPDATE mailboxes SET live_since = 5")
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1", "s2"]))
    assert await written(log) == [("alice", 0, ["s1", "s2"], 5)]
    before = now_ms()
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1", "s2"], is_new=True))
    assert (await written(log))[0][3] >= before


@pytest.mark.parametrize("most", [10**6, 2**63, 10**30])
async def test_a_seq_that_no_row_has_yet_skips_nothing(mailroom: Any, log: Any, fill: Any, most: int) -> None:
    seqs = await fill()
    await mailroom.note(MailboxNote(user_id="alice", taken=most, at_most=most))
    assert await written(log) == [("alice", seqs[-1], [], None)]


@pytest.mark.parametrize("before", [0, 10], ids=["empty log", "ten rows"])
async def test_a_cursor_that_no_row_has_yet_skips_nothing(mailroom: Any, http: Any, log: Any, before: int) -> None:
    seqs = [await log.direct("bob", "alice") for _ in range(before)]
    for _ in range(2):
        await http.read("alice", "sync", after=10**6)
    assert await mailroom.seqs("alice") == seqs
    seqs.append(await log.direct("bob", "alice"))
    assert await mailroom.seqs("alice") == seqs


async def test_several_notes_about_one_person_count_in_their_order(mailroom: Any, log: Any, fill: Any) -> None:
    seqs = await fill()
    await mailroom.note(
        MailboxNote(user_id="alice", sessions=["s1"]), MailboxNote(user_id="bob", sessions=["s9"]),
        MailboxNote(user_id="alice", taken=seqs[3]), MailboxNote(user_id="alice", at_most=seqs[1]),
        MailboxNote(user_id="alice", sessions=["s2"]), MailboxNote(user_id="alice", taken=seqs[2]),
    )  # fmt: skip
    assert [row[:3] for row in await written(log)] == [("alice", seqs[2], []), ("bob", 0, ["s9"])]


async def test_notes_of_two_bridges_at_once_about_the_same_people_all_count(
    mailroom: Any, log: Any, database_url: str, eventually: Any
) -> None:
    """Both wait for one row in the middle: if each had locked its own half, neither could go on."""
    people = ["ann", "bo", "nat"]  # of one shard
    newest = await log.direct("bob", "alice")
    await mailroom.note(*[MailboxNote(user_id=one) for one in people])
    blocker = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    blocking = blocker.transaction()
    await blocking.start()
    await blocker.execute("SELECT FROM mailboxes WHERE user_id = 'bo' FOR UPDATE")

    async def note(order: list[str]) -> None:
        present = [MailboxNote(user_id=one, sessions=["s1"]) for one in order]
        gone = [MailboxNote(user_id=one, taken=newest) for one in reversed(order)]
        await mailroom.note(*present, *gone)

    async def both_wait() -> None:
        waiting = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
        assert await log.connection.fetchval(waiting) == 2

    both = asyncio.gather(note(people), note(people[::-1]))
    await eventually(both_wait)
    await blocking.rollback()
    await blocker.close()
    await both
    assert await written(log) == [(one, newest, [], None) for one in people]


async def test_a_sync_and_a_note_about_new_people_do_not_wait_for_each_other_for_ever(
    mailroom: Any, http: Any, log: Any
) -> None:
    newest = await log.direct("bob", "alice")
    notes = [MailboxNote(user_id=one, sessions=["s1"]) for one in ("alice", "bob")]
    syncs = [http.read(one, "sync") for one in ("bob", "alice")]
    await asyncio.gather(mailroom.note(*notes), *syncs, mailroom.note(*notes[::-1], settled_seq=newest, settled_at=1))
    assert [row[:3] for row in await written(log)] == [("alice", 0, ["s1"]), ("bob", 0, ["s1"])]
    given = await log.connection.fetch("SELECT given_seq FROM mailboxes ORDER BY user_id")
    assert [row[0] for row in given] == [newest, newest]


SEQ = st.integers(0, 10)
NOTE: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, sessions=st.just(["s1"]), is_new=st.booleans()),
    st.builds(dict, sessions=st.just(["s1"]), is_stale=st.just(True), taken=st.none() | SEQ),
    st.builds(dict, taken=st.none() | SEQ, at_most=st.none() | SEQ),
)
EXAMPLES = count()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    batches=st.lists(st.lists(NOTE, min_size=1, max_size=4), max_size=5),
    settled=st.lists(st.none() | st.tuples(SEQ, st.sampled_from([60_000, 0])), min_size=5, max_size=5),
    times=st.integers(2, 3),
)
async def test_notes_that_are_repeated_because_no_answer_came_change_nothing_more(
    mailroom: Any,
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    batches: list[list[dict[str, Any]]],
    settled: list[tuple[int, int] | None],
    times: int,
) -> None:
    monkeypatch.setattr(service, "NOTICED_S", 0)  # otherwise nothing of this test has settled
    once, repeated = (f"{name}{next(EXAMPLES)}" for name in ("ann", "ben"))
    await log.connection.execute("UPDATE delivery_shards SET settled_seq = 0, settled_at = 0")
    while await log.direct("bob", "alice") < 10:  # so that no seq of a note is newer than the log
        pass
    for batch, what in zip(batches, settled, strict=False):
        before = now_ms()  # what is settled was handed over before its batch is sent, never after it
        while now_ms() == before:
            pass
        to_settle = {} if what is None else {"settled_seq": what[0], "settled_at": before - what[1]}
        for user_id, how_often in ((once, 1), (repeated, times)):
            notes = [MailboxNote(user_id=user_id, **note) for note in batch]
            for _ in range(how_often):
                await mailroom.note(*notes, **to_settle)
    rows = {row[0]: (row[1], row[2], row[3] is None) for row in await written(log)}
    assert rows.get(once) == rows.get(repeated)


async def test_every_bridge_that_takes_a_shard_over_gets_a_term_of_its_own(mailroom: Any) -> None:
    answers = await asyncio.gather(*(mailroom.live(3) for _ in range(5)))
    assert sorted(answer.term for answer in answers) == [1, 2, 3, 4, 5]
    assert (await mailroom.live(4)).term == 1


async def test_a_note_of_an_outdated_term_changes_nothing(mailroom: Any, log: Any, fill: Any) -> None:
    seqs = await fill()
    shard = delivery_shard("alice")
    earlier = (await mailroom.live(shard)).term
    note = MailboxNote(user_id="alice", sessions=["s1"])
    assert not (await mailroom.note_in(shard, note, term=earlier)).is_outdated
    later = (await mailroom.live(shard)).term
    before = await written(log)
    gone = MailboxNote(user_id="alice", taken=seqs[-1])
    answer = await mailroom.note_in(shard, gone, term=earlier, settled_seq=seqs[-1], settled_at=now_ms())
    assert answer.is_outdated
    assert await written(log) == before
    assert await log.connection.fetchval("SELECT max(settled_seq) FROM delivery_shards") == 0
    assert not (await mailroom.note_in(shard, gone, term=later)).is_outdated
    assert await written(log) == [("alice", seqs[-1], [], None)]


async def test_a_list_of_who_is_present_ends_when_another_bridge_takes_the_shard_over(mailroom: Any) -> None:
    shard, people = 3, ["ann", "bo", "nat"]
    await mailroom.note_in(shard, *[MailboxNote(user_id=one, sessions=["s1"]) for one in people])
    first = await mailroom.live(shard, limit=1)
    assert ([one.user_id for one in first.people], first.more) == (["ann"], True)
    await mailroom.live(shard)
    rest = await mailroom.live(shard, term=first.term, after_user="ann")
    assert (rest.people, rest.more, rest.is_outdated) == ([], False, True)


async def test_a_bridge_that_takes_over_sees_the_notes_that_were_being_written(
    mailroom: Any, log: Any, database_url: str, eventually: Any
) -> None:
    """The note waits for a row, and the question waits for the note: it cannot list people as they were before."""
    shard = delivery_shard("alice")
    await mailroom.note(MailboxNote(user_id="alice"))
    blocker = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    blocking = blocker.transaction()
    await blocking.start()
    await blocker.execute("SELECT FROM mailboxes FOR UPDATE")

    async def waiting(count: int) -> None:
        assert await log.connection.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") == count

    note = asyncio.ensure_future(mailroom.note(MailboxNote(user_id="alice", sessions=["s1"])))
    await eventually(lambda: waiting(1))
    question = asyncio.ensure_future(mailroom.live(shard))
    await eventually(lambda: waiting(2))
    await blocking.rollback()
    await blocker.close()
    await note
    assert [one.user_id for one in (await question).people] == ["alice"]


async def test_a_request_with_a_note_of_another_shard_is_refused_whole(mailroom: Any, log: Any) -> None:
    notes = [{"user_id": "bob", "sessions": ["s1"]}, {"user_id": "alice", "sessions": ["s1"]}]
    request = json.dumps({"shard": delivery_shard("bob"), "term": 0, "notes": notes})
    with pytest.raises(ValueError, match="whose shard is not"):
        await mailroom.note_bytes(request.encode())
    assert await written(log) == []


async def test_what_has_settled_in_one_shard_says_nothing_of_another(mailroom: Any, log: Any, fill: Any) -> None:
    seqs = await fill()
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s1"]), MailboxNote(user_id="bob", sessions=["s1"]))
    await log.connection.execute("UPDATE mailboxes SET live_since = 1_000")
    await mailroom.note_in(delivery_shard("bob"), settled_seq=seqs[4], settled_at=1_000)
    await mailroom.note(MailboxNote(user_id="alice"), MailboxNote(user_id="bob"))
    assert await written(log) == [("alice", 0, [], None), ("bob", seqs[4], [], None)]


async def test_a_person_noted_by_the_release_before_counts_as_gone_until_the_next_note(mailroom: Any, log: Any) -> None:
    await log.connection.execute("INSERT INTO mailboxes (user_id, taken_seq, sessions) VALUES ('alice', 0, '{s1}')")
    assert await mailroom.present() == []
    await mailroom.note(MailboxNote(user_id="alice", sessions=["s2"]))
    assert [(one.user_id, one.sessions) for one in await mailroom.present()] == [("alice", ["s2"])]

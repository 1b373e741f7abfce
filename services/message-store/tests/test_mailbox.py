"""The rules of mailboxes: notes in rounds, which part of the log is sent, and answers that fit."""

from collections.abc import Sequence
from typing import Any

import pytest
from message_store.mailbox.missed_repository import Block, MissedPage
from message_store.mailbox.repository import Standing
from message_store.mailbox.service import (
    FIRST_BLOCK,
    LARGEST_BLOCK,
    MAX_LOOKED_AT,
    MAX_MISSED,
    MAX_RECEIPTS,
    Extent,
    half_of_events,
    half_of_people,
    look_back,
    read_missed,
    rounds,
    take_notes,
)
from message_store.values import ReadRow
from tlim_protocol.lenient import write_json
from tlim_protocol.mailboxes import (
    NOTICED_S,
    LiveAnswer,
    LivePerson,
    MailboxNote,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.registry import REGISTRY, MsgType


def row(seq: int, msg_type: MsgType = MsgType.TEXT) -> ReadRow:
    return ReadRow(
        seq=seq, conversation_id="u:alice:bob", sender="bob", recipient="alice", msg_id=f"m{seq}", msg_type=msg_type,
        version="2.0.0", body=write_json([dict(REGISTRY[msg_type].example)]), msg_time="0", stored_at=seq,
    )  # fmt: skip


class FakeLog:
    """What was addressed to alice: seqs of receipts and of others, and rows of her own that are looked at in vain."""

    def __init__(
        self, others: Sequence[int] = (), receipts: Sequence[int] = (), own: Sequence[int] = (), taken: int = 0
    ) -> None:
        self.others, self.receipts, self.own = set(others), set(receipts), set(own)
        self.all = sorted({*others, *receipts, *own})
        self.taken = taken
        self.newest = max(self.all, default=0)
        self.blocks: list[tuple[int, int]] = []
        self.pages: list[tuple[int, bool]] = []

    async def standing(self, _user_id: str) -> Standing:
        return Standing(self.taken, self.newest)

    async def page(self, _user_id: str, after: int, limit: int, *, look_at: int, receipts: bool) -> MissedPage:
        self.pages.append((after, receipts))
        looked = [seq for seq in self.all if seq > after][:look_at]
        sent = [seq for seq in looked if seq in self.others or (receipts and seq in self.receipts)]
        rows = [row(seq, MsgType.READ if seq in self.receipts else MsgType.TEXT) for seq in sent[:limit]]
        if len(sent) > limit:
            return MissedPage(rows, rows[-1].seq, more=True)
        return MissedPage(rows, looked[-1] if looked else after, more=len(looked) == look_at)

    async def back(self, _user_id: str, low: int, high: int, most: int) -> Block:
        self.blocks.append((low, high))
        looked = [seq for seq in reversed(self.all) if low < seq <= high][:most]
        others = [seq for seq in looked if seq in self.others]
        receipts = [seq for seq in looked if seq in self.receipts]
        return Block(others, receipts, len(looked), looked[-1] - 1 if len(looked) == most else low)

    async def missed(self, limit: int = 100) -> tuple[list[int], MissedAnswer]:
        """All pages: the seqs, and the first answer."""
        page = first = await read_missed(self, MissedQuestion(user_id="alice", limit=limit))
        seqs = [event.seq for event in page.events]
        while page.more:
            question = MissedQuestion(user_id="alice", after=page.next, limit=limit, receipts=first.receipts)
            page = await read_missed(self, question)
            seqs += [event.seq for event in page.events]
        assert page.up_to == max(self.newest, self.taken)
        return seqs, first


async def test_who_has_missed_nothing_costs_one_look_at_the_mailbox() -> None:
    log = FakeLog(range(1, 9), taken=8)
    seqs, first = await log.missed()
    assert (seqs, first.up_to, log.pages, log.blocks) == ([], 8, [], [])


async def test_what_fits_into_a_page_is_read_once() -> None:
    log = FakeLog(range(1, 50), receipts=range(50, 90), taken=20)
    seqs, first = await log.missed()
    assert seqs == list(range(21, 90))
    assert (first.receipts, first.is_cut, log.pages, log.blocks) == (True, False, [(20, True)], [])


@pytest.mark.parametrize("count", [MAX_RECEIPTS, MAX_RECEIPTS + 1])
@pytest.mark.parametrize("limit", [50, 500])
async def test_receipts_come_only_if_they_are_few_in_all(count: int, limit: int) -> None:
    log = FakeLog(range(1, 1_000, 10), receipts=range(1_000, 1_000 + count))
    seqs, first = await log.missed(limit)
    are_few = count <= MAX_RECEIPTS
    assert first.receipts == are_few
    assert seqs == [seq for seq in log.all if are_few or seq in log.others]


@pytest.mark.parametrize(("others", "receipts"), [(MAX_MISSED, 0), (MAX_MISSED - 7, 7), (MAX_MISSED, 101)])
async def test_ten_thousand_are_sent_without_a_cut(others: int, receipts: int) -> None:
    log = FakeLog(range(1, others + 1), receipts=range(20_000, 20_000 + receipts))
    assert await look_back(log, "alice", 0, log.newest) == Extent(0, receipts <= MAX_RECEIPTS, is_cut=False)


async def test_of_more_than_ten_thousand_the_newest_are_sent_with_few_receipts_among_them() -> None:
    log = FakeLog(range(1, 3 * MAX_MISSED, 2), receipts=range(2, 20))
    seqs, first = await log.missed(500)
    assert (first.is_cut, first.receipts) == (True, True)
    assert seqs == log.all[-MAX_MISSED:]
    few = FakeLog(range(1, MAX_MISSED + 1), receipts=range(50_000, 50_050))
    assert await look_back(few, "alice", 0, few.newest) == Extent(50, receipts=True, is_cut=True)


async def test_many_receipts_do_not_count_among_the_ten_thousand() -> None:
    log = FakeLog(range(4, 4 * MAX_MISSED + 1, 4), receipts=range(1, 4 * MAX_MISSED, 4))
    seqs, first = await log.missed(500)
    assert (len(seqs), first.is_cut, first.receipts) == (MAX_MISSED, False, False)


async def test_no_more_than_a_bounded_number_of_rows_is_looked_back_at() -> None:
    log = FakeLog(range(1, 200), receipts=range(200, 2 * MAX_LOOKED_AT))
    extent = await look_back(log, "alice", 0, log.newest)
    assert extent == Extent(log.newest - MAX_LOOKED_AT, receipts=False, is_cut=True)


async def test_what_lies_far_back_is_found_in_few_looks_that_leave_no_gap() -> None:
    log = FakeLog([1, 2, 3, 10_000_000])
    assert await look_back(log, "alice", 0, log.newest) == Extent(0, receipts=True, is_cut=False)
    assert [high for _, high in log.blocks] == [log.newest, *[low for low, _ in log.blocks[:-1]]]
    assert log.blocks[0] == (10_000_000 - FIRST_BLOCK, 10_000_000)
    assert log.blocks[-1][0] == 0
    assert max(high - low for low, high in log.blocks) == LARGEST_BLOCK


async def test_a_look_back_goes_little_further_than_where_the_ten_thousandth_lies() -> None:
    log = FakeLog(range(1, 400_000, 4))
    assert await look_back(log, "alice", 0, log.newest) == Extent(log.newest - 4 * MAX_MISSED + 3, True, is_cut=True)
    assert log.newest - log.blocks[-1][0] <= 4 * MAX_MISSED + FIRST_BLOCK


async def test_pages_of_my_own_rows_are_empty_and_go_on() -> None:
    log = FakeLog([1, 900], own=range(2, 900))
    seqs, _ = await log.missed(50)
    assert seqs == [1, 900]


def test_each_round_of_notes_names_a_person_once_and_keeps_the_order() -> None:
    notes = [MailboxNote(user_id=who, taken=number) for number, who in enumerate("abacab")]
    found = [[(note.user_id, note.taken) for note in one] for one in rounds(notes)]
    assert found == [[("a", 0), ("b", 1), ("c", 3)], [("a", 2), ("b", 5)], [("a", 4)]]


class FakeTables:
    """Remembers the order of what is done."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    async def term(self, shard: int) -> int:
        self.done.append(("term", shard))
        return 5

    async def take(self, shard: int, number: int) -> bool:
        self.done.append(("take", shard, number))
        return number > 6

    async def settle(self, shard: int, seq: int, at: int) -> None:
        self.done.append(("settle", shard, seq, at))

    async def lock(self, shard: int, user_ids: Sequence[str]) -> None:
        self.done.append(("lock", shard, *user_ids))

    async def note(self, shard: int, notes: Sequence[MailboxNote], now: int) -> None:
        self.done.append(("note", shard, now, *[note.user_id for note in notes]))


NOW = 1_700_000_000_000


def request_of(*people: str, term: int = 5, **settled: int) -> MailboxNotes:
    return MailboxNotes(shard=3, term=term, notes=[MailboxNote(user_id=one) for one in people], **settled)


async def test_the_term_comes_first_then_what_settled_and_all_rows_are_locked_before_the_first_note() -> None:
    tables = FakeTables()
    await take_notes(tables, request_of("bo", "ann", "bo", settled_seq=7, settled_at=8), NOW)
    assert tables.done == [
        ("term", 3),
        ("settle", 3, 7, 8),
        ("lock", 3, "bo", "ann"),
        ("note", 3, NOW, "bo", "ann"),
        ("note", 3, NOW, "bo"),
    ]


async def test_what_settled_was_long_ago_whatever_the_clock_of_the_bridge_says() -> None:
    tables = FakeTables()
    await take_notes(tables, request_of(settled_seq=7, settled_at=NOW + 3_600_000), NOW)
    assert tables.done == [("term", 3), ("settle", 3, 7, NOW - NOTICED_S * 1_000)]


async def test_a_request_without_notes_only_says_what_settled() -> None:
    tables = FakeTables()
    await take_notes(tables, request_of(settled_seq=0, settled_at=8), NOW)
    await take_notes(tables, request_of(), NOW)
    assert tables.done == [("term", 3), ("settle", 3, 0, 8), ("term", 3)]


@pytest.mark.parametrize("term", [4, 6])
async def test_a_request_of_another_term_does_nothing_and_says_so(term: int) -> None:
    tables = FakeTables()
    answer = await take_notes(tables, request_of("ann", term=term, settled_seq=7, settled_at=8), 9)
    assert (answer.is_outdated, tables.done) == (True, [("term", 3)])


async def test_a_request_after_a_newer_one_does_nothing_and_is_no_sign_of_another_bridge() -> None:
    tables = FakeTables()
    answer = await take_notes(tables, request_of("ann", number=6, settled_seq=7, settled_at=8), 9)
    assert (answer.is_outdated, tables.done) == (False, [("term", 3), ("take", 3, 6)])


async def test_half_of_a_page_ends_where_its_last_event_is() -> None:
    answer = await read_missed(FakeLog(range(1, 6)), MissedQuestion(user_id="alice"))
    half = half_of_events(answer)
    assert half is not None
    assert ([event.seq for event in half.events], half.next, half.up_to, half.more) == ([1, 2], 2, 2, True)
    quarter = half_of_events(half)
    assert quarter is not None
    assert half_of_events(quarter) is None


def test_half_of_the_people_who_are_present_says_that_there_are_more() -> None:
    people = [LivePerson(user_id=who, sessions=["s"]) for who in "abc"]
    half = half_of_people(LiveAnswer(people=people, more=False, term=5))
    assert half == LiveAnswer(people=people[:1], more=True, term=5)
    assert half_of_people(LiveAnswer(people=people[:1], more=True, term=5)) is None

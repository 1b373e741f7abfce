"""Over random histories, what is unread, what sync tells and what was missed equal a recomputation in memory."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_store.mailbox import service
from message_store.reading.sync_service import LogKind
from tlim_protocol.mailboxes import MailboxNote

PEOPLE = ("ann", "ben", "cid")
EXAMPLES = count()

PERSON = st.integers(0, len(PEOPLE) - 1)
WHICH = st.integers(0, 30)
STEP = st.one_of(
    st.tuples(st.just("say"), PERSON, st.just(0)),
    st.tuples(st.just("write"), PERSON, PERSON),
    st.tuples(st.just("read"), PERSON, WHICH),
    st.tuples(st.just("recall"), PERSON, WHICH),
    st.tuples(st.just("tell"), PERSON, PERSON),
    st.tuples(st.just("come or go"), PERSON, st.just(0)),
    st.tuples(st.just("go away"), PERSON, st.just(0)),
)


@dataclass
class Said:
    """A message as somebody remembers it."""

    seq: int
    conversation: str
    sender: str
    readers: set[str]
    recalled: bool = False


@dataclass
class Memory:
    """One group and three people, kept twice: in the database, and here."""

    log: Any
    session_id: str
    people: tuple[str, ...]
    inside: set[str] = field(default_factory=set)
    said: list[Said] = field(default_factory=list)
    concerned: dict[int, set[str]] = field(default_factory=dict)
    """Everything of the log, by its seq: whom it concerns."""
    read_up_to: dict[tuple[str, str], int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    """The seq up to which a person's devices had taken everything when they went away."""

    async def take(self, act: str, person: int, which: int) -> None:
        me = self.people[person]
        if act == "say" and me in self.inside:
            self._remember(await self.log.say(me, self.session_id), self.session_id, me, self.inside)
        elif act == "write":
            other = self.people[which]
            pair = f"{min(me, other)} and {max(me, other)}"
            self._remember(await self.log.direct(me, other), pair, me, {me, other})
        elif act == "come or go":
            change = "removed" if me in self.inside else "added"
            seq = await self.log.change(self.session_id, actor=me, **{change: (me,)})
            self.concerned[seq] = self.inside | {me}
            self.inside ^= {me}
        elif act == "tell":
            other = self.people[which]
            self.concerned[await self.log.tell(me, self.session_id, other)] = {me, other}
        elif act == "go away":
            self.taken[me] = max(self.concerned)
        elif act in {"read", "recall"} and (chosen := self._choose(act, me, which)) is not None:
            await self._mark(act, me, chosen)

    def _remember(self, seq: int, conversation: str, sender: str, readers: set[str]) -> None:
        self.said.append(Said(seq, conversation, sender, set(readers)))
        self.concerned[seq] = set(readers)

    def _choose(self, act: str, me: str, which: int) -> Said | None:
        mine = [one for one in self.said if (one.sender == me) == (act == "recall") and me in one.readers]
        return mine[which % len(mine)] if mine else None

    async def _mark(self, act: str, me: str, chosen: Said) -> None:
        if act == "recall":
            await self.log.recall(chosen.seq)
            chosen.recalled = True
        else:
            await self.log.receive(me, chosen.seq, read=True)
            place = me, chosen.conversation
            self.read_up_to[place] = max(self.read_up_to.get(place, 0), chosen.seq)

    def conversations(self, me: str) -> dict[int, int]:
        """The newest message that I may see in each conversation → how many I have not read."""
        seen = [one for one in self.said if me in one.readers]
        newest = {one.conversation: one.seq for one in seen}
        unread = dict.fromkeys(newest, 0)
        for one in seen:
            is_new = one.seq > self.read_up_to.get((me, one.conversation), 0)
            unread[one.conversation] += is_new and one.sender != me and not one.recalled
        return {newest[name]: unread[name] for name in newest}


async def told_by_sync(http: Any, me: str, limit: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next": 0, "more": True}
    while page["more"]:
        page = await http.read(me, "sync", after=page["next"], limit=limit)
        items += page["items"]
    return items


def is_delivered(item: dict[str, Any], me: str) -> bool:
    """Whether an item of sync is delivered over XMPP: not what I sent to others, and nothing that was taken back."""
    from_others = item["kind"] == LogKind.NOTICE or item["from"] != me or item["to"] == me
    return from_others and not (item["kind"] == LogKind.MESSAGE and item["recalled"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=40), limit=st.integers(1, 30))
async def test_the_list_sync_and_the_mailbox_say_what_a_recomputation_says(
    http: Any, log: Any, mailroom: Any, steps: list[tuple[str, int, int]], limit: int
) -> None:
    example = next(EXAMPLES)  # the database is shared by all examples: each has people of its own
    people = tuple(f"{name}{example}" for name in PEOPLE)
    memory = Memory(log, f"group {example}", people, inside=set(people))
    memory.concerned[await log.group(memory.session_id, *people)] = set(people)
    for step in steps:
        await memory.take(*step)
    for me in people:
        listed = (await http.read(me, "conversations"))["items"]
        assert {one["last"]["seq"]: one["unread"] for one in listed if one["last"]} == memory.conversations(me)
        taken = memory.taken.get(me, 0)
        await mailroom.note(MailboxNote(user_id=me, taken=taken))
        missed = await mailroom.seqs(me, limit)
        told = await told_by_sync(http, me, limit)
        assert [item["seq"] for item in told] == [seq for seq, who in memory.concerned.items() if me in who]
        assert missed == [item["seq"] for item in told if item["seq"] > taken and is_delivered(item, me)]


SMALL = {"MAX_MISSED": 5, "MAX_RECEIPTS": 2, "FIRST_BLOCK": 2, "LARGEST_BLOCK": 8, "WITHOUT_RECEIPTS": 3}
"""Limits of mailboxes that a short history can reach."""


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(service, name, value)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEP, min_size=15, max_size=40), limit=st.integers(1, 4))
@pytest.mark.usefixtures("small_limits")
async def test_of_a_long_absence_the_newest_come_and_receipts_if_they_are_few(
    http: Any, log: Any, mailroom: Any, steps: list[tuple[str, int, int]], limit: int
) -> None:
    example = next(EXAMPLES)
    people = tuple(f"{name}{example}" for name in PEOPLE)
    memory = Memory(log, f"group {example}", people, inside=set(people))
    begin = await log.group(memory.session_id, *people)
    memory.concerned[begin] = set(people)
    for step in steps:
        await memory.take(*step)
    for me in people:
        await mailroom.note(MailboxNote(user_id=me, taken=begin - 1))
        events, last = await mailroom.missed(me, limit)
        told = [item for item in await told_by_sync(http, me, 50) if is_delivered(item, me)]
        receipts = [item["seq"] for item in told if item["kind"] == LogKind.RECEIPT]
        things = [item["seq"] for item in told if last.receipts or item["kind"] != LogKind.RECEIPT]
        assert [event.seq for event in events] == things[-SMALL["MAX_MISSED"] :]
        assert last.is_cut == (len(things) > SMALL["MAX_MISSED"])
        assert last.is_cut or last.receipts == (len(receipts) <= SMALL["MAX_RECEIPTS"])
        assert len({event.seq for event in events}.intersection(receipts)) <= SMALL["MAX_RECEIPTS"]

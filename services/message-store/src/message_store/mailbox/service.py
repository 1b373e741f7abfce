"""The rules of mailboxes: how notes are applied, and which part of the log a person has missed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from tlim_protocol.events import StoredMessage
from tlim_protocol.mailboxes import (
    NOTICED_S,
    LiveAnswer,
    LivePerson,
    LiveQuestion,
    MailboxNote,
    MailboxNoted,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.registry import REGISTRY, Effect, MsgType

from message_store.mailbox.missed_repository import Block, MissedPage
from message_store.mailbox.repository import Standing
from message_store.publication import delivery_from
from message_store.values import ReadRow

MAX_MISSED = 10_000
"""The most that a person is sent after an absence: the newest. Sync has the rest."""

MAX_RECEIPTS = 100
"""Up to so many receipts are sent with the rest. More say less than they cost, and sync has them."""

MAX_LOOKED_AT = 50_000
"""Rows that are looked at to find the newest 10,000 that are sent. In a busy group most rows are receipts."""

FIRST_BLOCK = 16_384
LARGEST_BLOCK = 1_048_576
"""Seqs that are looked back at in one statement. It looks at no more rows than this, so it never takes a second. Blocks
grow up to fourfold, because most people are in few of the conversations."""

WITHOUT_RECEIPTS = 1_000
"""Rows that a page looks at when receipts are left out: then most of them may be receipts."""


class NotedTables(Protocol):
    """Where notes are written (repository.Mailboxes)."""

    async def term(self, shard: int, /) -> int: ...
    async def take(self, shard: int, number: int, /) -> bool: ...
    async def settle(self, shard: int, seq: int, at: int, /) -> None: ...
    async def lock(self, shard: int, user_ids: Sequence[str], /) -> None: ...
    async def note(self, shard: int, notes: Sequence[MailboxNote], now: int, /) -> None: ...


class LiveTables(Protocol):
    """Where it stands who is present (repository.Mailboxes)."""

    async def term(self, shard: int, /) -> int: ...
    async def begin_term(self, shard: int, /) -> int: ...
    async def live(self, shard: int, after_user: str, limit: int, /) -> list[LivePerson]: ...


class MissedLog(Protocol):
    """Where it stands what was missed (missed_repository.MissedTables)."""

    async def standing(self, user_id: str, /) -> Standing: ...
    async def page(self, user_id: str, after: int, limit: int, /, *, look_at: int, receipts: bool) -> MissedPage: ...
    async def back(self, user_id: str, low: int, high: int, most: int, /) -> Block: ...


class Extent(NamedTuple):
    """The part of the log that is sent: after which seq, with receipts or not; `is_cut`: older things are left out."""

    after: int
    receipts: bool
    is_cut: bool


async def take_notes(tables: NotedTables, request: MailboxNotes, now: int) -> MailboxNoted:
    """Apply the notes in their order, at the time `now` (epoch milliseconds), if they are of the shard's term.

    What a newer request has said already stays as it is.
    """
    shard = request.shard
    if await tables.term(shard) != request.term:
        return MailboxNoted(is_outdated=True)
    if request.number is not None and not await tables.take(shard, request.number):
        return MailboxNoted()
    if request.settled_seq is not None and request.settled_at is not None:
        # The bridge speaks of a time so long ago. If its clock were ahead, mailboxes would skip what nobody got.
        await tables.settle(shard, request.settled_seq, min(request.settled_at, now - NOTICED_S * 1_000))
    if request.notes:
        await tables.lock(shard, list(dict.fromkeys(note.user_id for note in request.notes)))
    for notes in rounds(request.notes):
        await tables.note(shard, notes, now)
    return MailboxNoted()


def rounds(notes: Sequence[MailboxNote]) -> Iterator[list[MailboxNote]]:
    """Yield the notes in rounds that name each person once: the first note about each, then the second, and so on."""
    waiting = list(notes)
    while waiting:
        first: dict[str, MailboxNote] = {}
        rest = []
        for note in waiting:
            if note.user_id in first:
                rest.append(note)
            else:
                first[note.user_id] = note
        yield list(first.values())
        waiting = rest


async def list_live(tables: LiveTables, question: LiveQuestion) -> LiveAnswer:
    """Return the next people of a shard that were present at the last note; without a term a new one begins."""
    shard, asked = question.shard, question.term
    term = await (tables.begin_term(shard) if asked is None else tables.term(shard))
    if asked is not None and asked != term:
        return LiveAnswer(people=[], more=False, term=term, is_outdated=True)
    found = await tables.live(shard, question.after_user, question.limit + 1)
    return LiveAnswer(people=found[: question.limit], more=len(found) > question.limit, term=term)


def half_of_people(answer: LiveAnswer) -> LiveAnswer | None:
    """Return the first half of an answer that is too large to be sent; None: a single person cannot be halved."""
    people = answer.people[: len(answer.people) // 2]
    return answer.model_copy(update={"people": people, "more": True}) if people else None


async def read_missed(tables: MissedLog, question: MissedQuestion) -> MissedAnswer:
    """Return a page of what the person has missed; the first page tells which part of the log is sent.

    For somebody who has missed little, the first page is all that is looked at.
    """
    me, limit = question.user_id, question.limit
    taken, newest = await tables.standing(me)
    if question.after is None:
        page, extent = await _first_page(tables, me, limit, taken, newest)
    else:
        extent = Extent(question.after, question.receipts, is_cut=False)
        page = await _page(tables, me, limit, extent)
    return MissedAnswer(
        events=[_delivery(message, me) for message in page.messages],
        next=page.next,
        more=page.more,
        up_to=page.next if page.more else max(newest, page.next),
        receipts=extent.receipts,
        is_cut=extent.is_cut,
    )


def half_of_events(answer: MissedAnswer) -> MissedAnswer | None:
    """Return the first half of a page that is too large to be sent; None: a single event cannot be halved."""
    events = answer.events[: len(answer.events) // 2]
    if not events:
        return None
    last = events[-1].seq
    return answer.model_copy(update={"events": events, "next": last, "more": True, "up_to": last})


async def _first_page(tables: MissedLog, me: str, limit: int, taken: int, newest: int) -> tuple[MissedPage, Extent]:
    expected = Extent(taken, receipts=True, is_cut=False)
    if taken >= newest:
        return MissedPage([], taken, more=False), expected
    page = await _page(tables, me, limit, expected)
    if page.more:
        extent = await look_back(tables, me, taken, newest)
    else:
        receipts = sum(REGISTRY[MsgType(message.msg_type)].effect is Effect.RECEIPT for message in page.messages)
        extent = expected._replace(receipts=receipts <= MAX_RECEIPTS)
    return (page if extent[:2] == expected[:2] else await _page(tables, me, limit, extent)), extent


async def _page(tables: MissedLog, me: str, limit: int, extent: Extent) -> MissedPage:
    look_at = limit + 1 if extent.receipts else WITHOUT_RECEIPTS
    return await tables.page(me, extent.after, limit, look_at=look_at, receipts=extent.receipts)


async def look_back(tables: MissedLog, me: str, taken: int, newest: int) -> Extent:
    """Return the part of the log after seq `taken` that is sent: the newest MAX_MISSED things at most."""
    others: list[int] = []
    receipts: list[int] = []
    low, width, most = newest, FIRST_BLOCK, MAX_LOOKED_AT
    while low > taken and most > 0 and len(others) <= MAX_MISSED:
        block = await tables.back(me, max(taken, low - width), low, most)
        others += block.others
        receipts += block.receipts
        low, most = block.low, most - block.looked_at
        width = min(width * 4, LARGEST_BLOCK, _further(width, block, most, MAX_MISSED - len(others)))
    with_receipts = len(receipts) <= MAX_RECEIPTS
    things = sorted(others + receipts, reverse=True) if with_receipts else others
    if len(things) > MAX_MISSED:
        return Extent(things[MAX_MISSED - 1] - 1, with_receipts, is_cut=True)
    return Extent(low, with_receipts, is_cut=low > taken)


def _further(width: int, block: Block, most: int, missing: int) -> int:
    """Return how many seqs further back the rest probably lies, if it is as dense as in a block of this width."""
    rows = most * width // max(block.looked_at, 1)
    things = max(missing, 0) * width // max(len(block.others), 1)
    return min(rows, things) + FIRST_BLOCK


def _delivery(message: ReadRow, me: str) -> StoredMessage:
    """Return the delivery to one person; it tells the sender's own devices nothing."""
    return delivery_from(message, message.elements, [me]).model_copy(update={"tells_sender": False})

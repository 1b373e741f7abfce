"""The rules of search: what is looked for, where, in which order, and how much work one question may cause."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.identity import conversation_of_users, normalize_user_id
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import REGISTRY

from message_store.models import Message
from message_store.reading.slice_repository import MAX_BYTES, Slice
from message_store.search.grams import (
    BLOCK_BITS,
    folded,
    gram_of_block,
    gram_of_conversation,
    gram_of_person,
    gram_of_sender,
    grams_of_query,
    text_of,
)

CANDIDATES = 200
"""Messages looked at in one statement: a few milliseconds' work, and more than a page of hits."""

CANDIDATES_ANYWHERE = 1_000
"""The same for a rare word that is looked up wherever it was said: few of them are for the one who asks."""

MANY_PLACES = 30
FEW = 2_000
"""Who has been in more groups than the one has a word looked up anywhere first, if it is in fewer messages than the
other, as far as the newest ones tell."""

MAX_STATEMENTS = 60
MAX_SECONDS = 1.0
"""After either a page ends as it is and says where to go on: nobody's question holds a connection for longer."""

CLOCK_TOLERANCE_MS = 60_000
"""Times rise with seq, but for a clock that was set back or a leader on a machine whose clock differs by seconds."""


_CHAT_TYPES = frozenset(kind.value for kind, row in REGISTRY.items() if row.is_chat)


class Question(NamedTuple):
    """What somebody searches for; `sender` is normalised, times are epoch milliseconds, `before` is a seq."""

    text: str
    conversation: str | None = None  # the other's user id, or a session's id
    sender: str | None = None
    msg_type: str | None = None
    since: int | None = None
    until: int | None = None
    before: int | None = None


class Filters(NamedTuple):
    """What a message's row has to be, beside its text; None: anything."""

    conversation_id: str | None
    sender: str | None
    msg_type: str | None
    since: int | None
    until: int | None


class Lookup(NamedTuple):
    """What the index is asked: messages that `user_id` may see, with all required numbers and one of `any_of`."""

    user_id: str
    required: frozenset[int]
    any_of: frozenset[int]  # empty: no matter
    filters: Filters


class Candidates(NamedTuple):
    """What the index gave, newest first: how many, the last of them, and those that the one who asks may see."""

    size: int
    last_seq: int
    visible: Sequence[int]


class SearchTables(Protocol):
    """Where messages are looked up (search.repository.SearchReader)."""

    async def groups_of(self, user_id: str, /) -> Collection[str]:
        """Return the ids of the sessions that somebody is or was in."""

    async def span(self) -> tuple[int, int]:
        """Return the first and the last indexed seq; (0, 0): none."""

    async def first_after(self, stored_at: int, first: int, last: int, /) -> int:
        """Return the first seq from `first` to `last` + 1 behind which everything was stored after a time."""

    async def candidates(self, lookup: Lookup, before: int, limit: int, /) -> Candidates:
        """Return the newest messages before a seq that the index gives for a look-up."""

    async def messages(self, seqs: Sequence[int], /) -> Slice:
        """Return messages, newest first, as many of them as are not too large together."""


class Hits(NamedTuple):
    """A page of what was found, newest first; `next` is the `before` that goes on, None: everything was searched."""

    messages: Sequence[Message]
    next: int | None


def checked(question: Question) -> Question:
    """Return a question with its text folded and its sender normalised.

    Raises TlimError FIELD_INVALID for a text of blanks and for what is no user, MSG_TYPE_INVALID for no type of chat.
    """
    text = folded(question.text)
    if not text:
        raise TlimError(ErrorCode.FIELD_INVALID, "there is nothing to search for", field="q")
    if question.msg_type is not None and question.msg_type not in _CHAT_TYPES:
        raise TlimError(
            ErrorCode.MSG_TYPE_INVALID, f"{quoted(question.msg_type)} is not a type of chat", field="msg_type"
        )
    sender = None if question.sender is None else _user(question.sender, "sender")
    return question._replace(text=text, sender=sender)


async def search(
    reader: SearchTables, me: str, question: Question, *, limit: int, elapsed: Callable[[], float]
) -> Hits:
    """Return the newest messages that `me` may see and that contain the text, up to `limit`.

    `elapsed` tells the seconds that this has taken. A page that ends because the work was too much may hold fewer,
    or none, and has a `next` all the same.
    """
    return await _Search(reader, me, question, limit, elapsed).run()


class _Search:
    def __init__(
        self, reader: SearchTables, me: str, question: Question, limit: int, elapsed: Callable[[], float]
    ) -> None:
        self._reader = reader
        self._me = me
        self._question = question
        self._limit = limit
        self._elapsed = elapsed
        self._found: list[Message] = []
        self._size = 0  # characters of the bodies of what was found

    async def run(self) -> Hits:
        """Go back through the log in blocks that grow while little is found."""
        lookup = lookup_of(self._me, self._question, await self._reader.groups_of(self._me))
        first, before = await self._bounds()
        level = 0
        if len(lookup.any_of) > MANY_PLACES and lookup.required:
            lookup, before = await self._probe(lookup, first, before)
            level = 1  # two of the smallest blocks are done
        if not lookup.any_of:
            level = len(BLOCK_BITS)
        for _ in range(MAX_STATEMENTS):
            if before <= first or self._is_full():
                break
            before, level = await self._step(lookup, level, first, before)
            if self._elapsed() > MAX_SECONDS:  # after a step: each page comes further than the one before
                break
        if self._is_full():
            page = self._found[: self._limit]
            return Hits(page, page[-1].seq)
        return Hits(self._found, before if before > first else None)

    async def _step(self, lookup: Lookup, level: int, first: int, before: int) -> tuple[int, int]:
        """Look through the block of a level before a seq; return before which seq, and on which level, to go on."""
        is_mine = lookup.any_of or lookup.filters.conversation_id
        limit = CANDIDATES if is_mine else CANDIDATES_ANYWHERE
        if level < len(BLOCK_BITS):
            bits = BLOCK_BITS[level]
            lookup = lookup._replace(required=lookup.required | {gram_of_block(bits, before - 1)})
            first = (before - 1) >> bits << bits
        got = await self._reader.candidates(lookup, before, limit)
        rest = await self._look_at(got.visible)
        if rest:
            return rest[0] + 1, level
        return (got.last_seq, 0) if got.size == limit else (first, level + 1)

    async def _probe(self, lookup: Lookup, first: int, before: int) -> tuple[Lookup, int]:
        """Look through two small blocks anywhere; return how to go on: anywhere too, if that is rare, and from where.

        To compare with hundreds of places costs more than to look up where each of a few messages was said.
        """
        bits = BLOCK_BITS[0]
        start = ((before - 1) >> bits << bits) - (1 << bits)
        blocks = frozenset({gram_of_block(bits, before - 1), gram_of_block(bits, max(start, 0))})
        got = await self._reader.candidates(lookup._replace(any_of=blocks), before, CANDIDATES)
        rest = await self._look_at(got.visible)
        if rest or got.size == CANDIDATES:
            return lookup, rest[0] + 1 if rest else got.last_seq
        expected = (got.size + 1) * (start - first) // (before - start)
        return (lookup._replace(any_of=frozenset()) if expected < FEW else lookup), max(start, first)

    def _is_full(self) -> bool:
        return len(self._found) > self._limit or self._size > MAX_BYTES

    async def _look_at(self, seqs: Sequence[int]) -> Sequence[int]:
        """Keep those whose text holds what is searched for; the numbers alone may be a coincidence.

        Return what is left of them when the page is full or the time is up: they can be 200 messages of 1 MiB each.
        """
        while seqs and not self._is_full():
            asked, seqs = seqs[: self._limit + 1 - len(self._found)], seqs[self._limit + 1 - len(self._found) :]
            read = await self._reader.messages(asked)
            for message in read.messages:
                text = text_of(message.msg_type, message.body)
                if self._question.text in text:
                    self._found.append(message)
                    self._size += len(write_json(message.body))  # what is found is the text, what is sent is all
            if read.more:
                seqs = [*(seq for seq in asked if seq < read.messages[-1].seq), *seqs]
            if self._elapsed() > MAX_SECONDS:
                break
        return seqs

    async def _bounds(self) -> tuple[int, int]:
        """Return the first seq to look at and the one after the last."""
        first, last = await self._reader.span()
        since, until, before = self._question.since, self._question.until, last + 1
        if until is not None:
            before = await self._reader.first_after(until + CLOCK_TOLERANCE_MS, first, last)
        if since is not None:
            first = await self._reader.first_after(since - CLOCK_TOLERANCE_MS, first, last)
        return first, before if self._question.before is None else min(before, self._question.before)


def lookup_of(me: str, question: Question, groups: Collection[str]) -> Lookup:
    """Return what the index is asked: only where `me` has been, in one conversation or in all of his.

    Raises TlimError FIELD_INVALID for a conversation that can be neither a session of his nor a user.
    """
    filters = Filters(None, question.sender, question.msg_type, question.since, question.until)
    required = grams_of_query(question.text)
    if question.sender is not None:
        required.add(gram_of_sender(question.sender))
    if question.conversation is None:
        any_of = frozenset({gram_of_person(me), *map(gram_of_conversation, groups)})
        return Lookup(me, frozenset(required), any_of, filters)
    conversation_id = question.conversation
    if conversation_id not in groups:
        conversation_id = conversation_of_users(me, _user(conversation_id, "conversation"))
    required.add(gram_of_conversation(conversation_id))
    return Lookup(me, frozenset(required), frozenset(), filters._replace(conversation_id=conversation_id))


def _user(raw: str, field: str) -> str:
    try:
        return normalize_user_id(raw)
    except TlimError as error:
        raise TlimError(error.code, error.detail, field=field) from None

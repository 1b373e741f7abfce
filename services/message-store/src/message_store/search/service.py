"""The rules of search: what to look for and where, in which order, and how much work one question may cause."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.identity import conversation_of_users, normalize_user_id
from tlim_protocol.registry import REGISTRY

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
from message_store.values import ReadRow

CANDIDATES = 200
"""Messages looked at in one statement: a few milliseconds of work, and more than most pages need."""

CANDIDATES_ANYWHERE = 1_000
"""The same, when a rare word is looked up in everybody's conversations: the reader may see only few candidates."""

MANY_PLACES = 30
FEW = 2_000
"""For a reader with more than MANY_PLACES conversations to look in: if the word occurs in fewer than FEW messages, we
look it up in everybody's conversations and check membership afterwards. The newest messages give the estimate."""

MAX_STATEMENTS = 60
MAX_SECONDS = 1.0
"""After either limit the page ends as it is, and its `next` tells where to go on. So no search holds a database
connection for longer."""

CLOCK_TOLERANCE_MS = 60_000
"""Times normally rise with seq. They may not when a clock was set back, or when the clocks of stores differ by
seconds. So a search by time looks this much further."""


_CHAT_TYPES = frozenset(kind.value for kind, row in REGISTRY.items() if row.is_chat)


class Question(NamedTuple):
    """What a user searches for; `sender` is normalised, times are epoch milliseconds, `before` is a seq."""

    text: str
    conversation: str | None = None  # the other person's user id, or a session's id
    sender: str | None = None
    msg_type: str | None = None
    since: int | None = None
    until: int | None = None
    before: int | None = None


class Filters(NamedTuple):
    """The conditions on a message's row, besides its text; None: no condition."""

    conversation_id: str | None
    sender: str | None
    msg_type: str | None
    since: int | None
    until: int | None


class Lookup(NamedTuple):
    """A question to the index: messages that `user_id` may see, with all of `required` and at least one of `any_of`."""

    user_id: str
    required: frozenset[int]
    any_of: frozenset[int]  # empty: no such condition
    filters: Filters


class Candidates(NamedTuple):
    """What the index gave, newest first: how many, the seq of the last, and the seqs that the reader may see."""

    size: int
    last_seq: int
    visible: Sequence[int]


class SearchTables(Protocol):
    """Where messages are looked up (search.repository.SearchReader)."""

    async def groups_of(self, user_id: str, /) -> Collection[str]:
        """Return the ids of the sessions that a user is or was in."""

    async def span(self) -> tuple[int, int]:
        """Return the first and the last indexed seq; (0, 0) when nothing is indexed."""

    async def first_after(self, stored_at: int, first: int, last: int, /) -> int:
        """Return the first seq, from `first` to `last` + 1, from which on everything was stored after a time."""

    async def candidates(self, lookup: Lookup, before: int, limit: int, /) -> Candidates:
        """Return the newest messages before a seq that match a look-up in the index."""

    async def messages(self, seqs: Sequence[int], /) -> Slice:
        """Return the messages with these seqs, newest first, until they fill a page."""


class Hits(NamedTuple):
    """A page of hits, newest first; `next` is the `before` of the next page, None when everything was searched."""

    messages: Sequence[ReadRow]
    next: int | None


def checked(question: Question) -> Question:
    """Return a question with its text folded and its sender normalised.

    Raises TlimError FIELD_INVALID when the text is blank or the sender is no user id, and MSG_TYPE_INVALID when
    `msg_type` is not a type of chat.
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

    `elapsed` tells the seconds since the search began. A page that ends because of the limits on work may hold fewer
    hits, or none; it still has a `next`.
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
        self._found: list[ReadRow] = []
        self._size = 0  # characters of the bodies found so far

    async def run(self) -> Hits:
        """Go back through the log in blocks that grow while little is found."""
        lookup = lookup_of(self._me, self._question, await self._reader.groups_of(self._me))
        first, before = await self._bounds()
        level = 0
        if len(lookup.any_of) > MANY_PLACES and lookup.required:
            lookup, before = await self._probe(lookup, first, before)
            level = 1  # the two smallest blocks are done
        if not lookup.any_of:
            level = len(BLOCK_BITS)
        for _ in range(MAX_STATEMENTS):
            if before <= first or self._is_full():
                break
            before, level = await self._step(lookup, level, first, before)
            if self._elapsed() > MAX_SECONDS:  # checked after a step, so that every page makes progress
                break
        if self._is_full():
            page = self._found[: self._limit]
            return Hits(page, page[-1].seq)
        return Hits(self._found, before if before > first else None)

    async def _step(self, lookup: Lookup, level: int, first: int, before: int) -> tuple[int, int]:
        """Search the block of this level that ends before a seq; return the seq and the level to go on with."""
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
        """Search two small blocks in everybody's conversations; return the look-up and the seq to go on with.

        The hits tell whether the text is rare. If so, the rest of the log is searched in the same way: to look up the
        conversations of a few messages costs less than to compare with hundreds of conversations.
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
        """Keep the messages that contain the text: the index compares numbers only, and may be wrong.

        Return the seqs that were not read because the page is full or the time is up. There can be many, as 200
        messages of 1 MiB each take long to read.
        """
        while seqs and not self._is_full():
            asked, seqs = seqs[: self._limit + 1 - len(self._found)], seqs[self._limit + 1 - len(self._found) :]
            read = await self._reader.messages(asked)
            for message in read.messages:
                text = text_of(message.msg_type, message.elements)
                if self._question.text in text:
                    self._found.append(message)
                    self._size += len(message.body)  # the page holds the whole body, not only its text
            if read.more:
                seqs = [*(seq for seq in asked if seq < read.messages[-1].seq), *seqs]
            if self._elapsed() > MAX_SECONDS:
                break
        return seqs

    async def _bounds(self) -> tuple[int, int]:
        """Return the first seq to look at, and the seq after the last one."""
        first, last = await self._reader.span()
        since, until, before = self._question.since, self._question.until, last + 1
        if until is not None:
            before = await self._reader.first_after(until + CLOCK_TOLERANCE_MS, first, last)
        if since is not None:
            first = await self._reader.first_after(since - CLOCK_TOLERANCE_MS, first, last)
        return first, before if self._question.before is None else min(before, self._question.before)


def lookup_of(me: str, question: Question, groups: Collection[str]) -> Lookup:
    """Return the question to the index: one conversation of `me`, or all that `me` is or was in.

    Raises TlimError FIELD_INVALID for a conversation that is neither one of `groups` nor a user id.
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

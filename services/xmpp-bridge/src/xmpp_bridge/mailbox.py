"""A shard's mailboxes in message-store: questions over the broker, and notes that are written in order, not lost."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from tlim_protocol.mailboxes import (
    LiveAnswer,
    LiveQuestion,
    MailboxNote,
    MailboxNoted,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.subjects import Rpc
from tlim_runtime.background import Background, cancellable
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import waiting

logger = get_logger(__name__)

PEOPLE = 1_000
"""People in one answer. With the longest names and ids that is 1 MB."""

AT_A_TIME = 500
"""Notes in one request."""

MISSED_WITHIN_S = 10.0
"""The store answers a few such questions at a time. After a long absence one takes a second."""

RETRY_S = 0.5
"""The pause before notes are sent again that nobody has taken."""


class Store(Protocol):
    """The service that keeps the mailboxes: message-store, over the broker's request-reply."""

    async def request(self, subject: str, payload: bytes, timeout_s: float = ...) -> bytes: ...


async def ask_missed(store: Store, question: MissedQuestion, within_s: float = MISSED_WITHIN_S) -> MissedAnswer:
    """Return a page of what a person has missed. Raises Unavailable when the store does not answer."""
    return MissedAnswer.from_bytes(await store.request(Rpc.MAILBOX_MISSED, question.to_bytes(), within_s))


class Live(NamedTuple):
    """A new term of a shard, and the sessions of each person of the shard that was present at the last note."""

    term: int
    people: dict[str, list[str]]


class Outdated(Unavailable):
    """Another bridge has begun a later term of the shard."""


async def ask_live(store: Store, shard: int) -> Live:
    """Begin a new term of the shard. Raises Unavailable when the store does not answer, or Outdated."""
    people: dict[str, list[str]] = {}
    question, more = LiveQuestion(shard=shard, limit=PEOPLE), True
    while more:
        answer = LiveAnswer.from_bytes(await store.request(Rpc.MAILBOX_LIVE, question.to_bytes()))
        if answer.is_outdated:
            raise Outdated(f"shard {shard} has another bridge")
        people.update((person.user_id, person.sessions) for person in answer.people)
        more = answer.more and bool(answer.people)
        after = answer.people[-1].user_id if answer.people else ""
        question = LiveQuestion(shard=shard, term=answer.term, after_user=after, limit=PEOPLE)
    return Live(answer.term, people)


def merged(first: MailboxNote, second: MailboxNote) -> MailboxNote | None:
    """Return one note that does what both do, one after the other; None: nothing simple does.

    A device can come and go, or miss messages, quicker than the store writes. Without this all others would wait.
    """
    if first == second:
        return first
    if not first.sessions and not second.sessions and second.taken is None:
        bounds = [note.at_most for note in (first, second) if note.at_most is not None]
        return first.model_copy(update={"at_most": min(bounds, default=None)})
    if first.sessions and second.sessions and not first.is_stale and not second.is_stale:
        return second.model_copy(update={"is_new": first.is_new or second.is_new})
    return None


class Notes:
    """Writes notes into a shard's mailboxes, in the order in which they came.

    They wait while the store does not answer, and until the shard's term is known. `outdated` is called when the store
    takes no more of them, because another bridge has begun a later term.
    """

    def __init__(self, store: Store, shard: int, outdated: Callable[[], None]) -> None:
        self._store = store
        self._shard = shard
        self._outdated = outdated
        self._term: int | None = None
        self._waiting: deque[MailboxNote] = deque()
        self._settled: tuple[int, int, int] | None = None  # how many notes go before it; seq; at
        self._added = self._written = 0
        self._numbers = itertools.count(1)  # of requests
        self._on_the_way = 0  # so many of those that wait are in a request
        self._last: dict[str, int] = {}  # by person: the number of the last note that waits
        self._news, self._progress = asyncio.Event(), asyncio.Condition()
        self._reason = ""
        self.background = Background("notes of mailboxes", self._run)

    def begin(self, term: int) -> None:
        """Write in this term from now on."""
        self._term = term
        self._reason = ""
        self._news.set()

    @property
    def has_term(self) -> bool:
        """Whether notes can be written."""
        return self._term is not None

    def add(self, note: MailboxNote) -> None:
        """Have a note written. If the last one about this person still waits, one note may say both (`merged`)."""
        place = self._last.get(note.user_id, 0) - self._written - 1
        both = merged(self._waiting[place], note) if place >= self._on_the_way else None
        if both is not None:
            self._waiting[place] = both
            return
        self._waiting.append(note)
        self._added += 1
        self._last[note.user_id] = self._added
        self._news.set()

    def settle(self, seq: int, at: int) -> None:
        """Have it written that everything up to `seq` had been handed over at `at` (epoch milliseconds).

        It is written behind the notes that were added before. Somebody who left long ago, and whose note has waited for
        the store, has not got what was handed over since.
        """
        self._settled = self._added, seq, at
        self._news.set()

    async def written(self) -> None:
        """Return when all notes that were added before are written."""
        await self._reached(self._added)

    async def written_about(self, user_ids: Iterable[str]) -> None:
        """Return when all notes about these people that were added before are written."""
        if self._last:
            await self._reached(max((self._last.get(user_id, 0) for user_id in user_ids), default=0))

    async def _reached(self, wanted: int) -> None:
        with waiting():  # for the store, however long it is away
            async with self._progress:
                await self._progress.wait_for(lambda: self._written >= wanted)

    async def ping(self) -> None:
        """Raise Unavailable while notes wait because the store does not take them."""
        await self.background.ping()
        if self._reason:
            raise Unavailable(self._reason)

    async def _run(self) -> None:
        while True:
            while self._term is not None and (self._waiting or self._settled):
                try:
                    await cancellable(self._write(self._term))
                except Outdated as error:
                    self._reason = str(error)
                    self._outdated()  # first: who waits for notes must not go on
                    await self._drop()
                except Unavailable as error:
                    self._reason = f"notes of mailboxes wait: {error}"
                    await asyncio.sleep(RETRY_S)
                else:
                    self._reason = ""
            with waiting():
                await self._news.wait()
            self._news.clear()

    async def _drop(self) -> None:
        """Forget what waits: the bridge that has the shard now notes what is true."""
        self._term, self._settled = None, None
        self._waiting.clear()
        self._last.clear()
        async with self._progress:
            self._written = self._added
            self._progress.notify_all()

    async def _write(self, term: int) -> None:
        notes = [self._waiting[place] for place in range(min(len(self._waiting), AT_A_TIME))]
        settled = self._settled if self._settled is not None and self._settled[0] <= self._written else None
        _, seq, at = settled or (0, None, None)
        request = MailboxNotes(
            shard=self._shard, term=term, number=next(self._numbers), notes=notes, settled_seq=seq, settled_at=at
        )
        self._on_the_way = len(notes)
        try:
            answer = MailboxNoted.from_bytes(await self._store.request(Rpc.MAILBOX_NOTE, request.to_bytes()))
        finally:
            self._on_the_way = 0
        if answer.is_outdated:
            raise Outdated(f"shard {self._shard} has another bridge")
        for number, note in enumerate(notes, self._written + 1):
            self._waiting.popleft()
            if self._last[note.user_id] == number:
                del self._last[note.user_id]
        if settled is not None and self._settled is settled:
            self._settled = None
        async with self._progress:
            self._written += len(notes)
            self._progress.notify_all()

"""The mailboxes in message-store: questions over the broker, and notes that are written in order, and not lost."""

import asyncio
from collections import deque
from typing import Protocol

from tlim_protocol.events import (
    LiveAnswer,
    LiveQuestion,
    MailboxNote,
    MailboxNotes,
    MissedAnswer,
    MissedQuestion,
)
from tlim_protocol.subjects import Rpc
from tlim_runtime.background import Background, cancellable
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

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


async def ask_missed(store: Store, question: MissedQuestion) -> MissedAnswer:
    """Return a page of what a person has missed. Raises Unavailable when the store does not answer."""
    return MissedAnswer.from_bytes(await store.request(Rpc.MAILBOX_MISSED, question.to_bytes(), MISSED_WITHIN_S))


async def ask_live(store: Store) -> dict[str, list[str]]:
    """Return everybody who was present at the last note, and in which sessions. Raises Unavailable."""
    people: dict[str, list[str]] = {}
    after, more = "", True
    while more:
        question = LiveQuestion(after_user=after, limit=PEOPLE)
        answer = LiveAnswer.from_bytes(await store.request(Rpc.MAILBOX_LIVE, question.to_bytes()))
        people.update((person.user_id, person.sessions) for person in answer.people)
        more = answer.more and bool(answer.people)
        after = answer.people[-1].user_id if answer.people else ""
    return people


class Notes:
    """Writes notes into mailboxes, in the order in which they came. They wait while the store does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[MailboxNote] = deque()
        self._settled: tuple[int, int, int] | None = None  # how many notes go before it; seq; at
        self._added = self._written = 0
        self._news, self._progress = asyncio.Event(), asyncio.Condition()
        self._reason = ""
        self.background = Background("notes of mailboxes", self._run)

    def add(self, note: MailboxNote) -> None:
        """Have a note written."""
        self._waiting.append(note)
        self._added += 1
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
        wanted = self._added
        async with self._progress:
            await self._progress.wait_for(lambda: self._written >= wanted)

    async def ping(self) -> None:
        """Raise Unavailable while notes wait because the store does not take them."""
        await self.background.ping()
        if self._reason:
            raise Unavailable(self._reason)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting or self._settled:
                try:
                    await cancellable(self._write())
                except Unavailable as error:
                    self._reason = f"notes of mailboxes wait: {error}"
                    await asyncio.sleep(RETRY_S)
                else:
                    self._reason = ""

    async def _write(self) -> None:
        notes = [self._waiting[place] for place in range(min(len(self._waiting), AT_A_TIME))]
        settled = self._settled if self._settled is not None and self._settled[0] <= self._written else None
        _, seq, at = settled or (0, None, None)
        request = MailboxNotes(notes=notes, settled_seq=seq, settled_at=at)
        await self._store.request(Rpc.MAILBOX_NOTE, request.to_bytes())
        for _ in notes:
            self._waiting.popleft()
        if settled is not None and self._settled is settled:
            self._settled = None
        async with self._progress:
            self._written += len(notes)
            self._progress.notify_all()

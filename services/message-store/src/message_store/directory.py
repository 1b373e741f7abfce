"""Asking the other services over NATS: which users exist, who is in a session, who uploaded a file."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Protocol

from cachetools import TTLCache
from pydantic import ValidationError
from tlim_protocol.events import (
    Event,
    FileQuestion,
    FilesAnswer,
    FilesQuestion,
    SessionChanges,
    SessionChangesQuestion,
    SessionsAnswer,
    SessionsQuestion,
    UserMeet,
    UsersKnown,
)
from tlim_protocol.subjects import Rpc
from tlim_runtime.background import beside
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable, NoAnswerInTime

from message_store.errors import DirectoryUnavailable
from message_store.values import AnsweredSession, FileFacts

logger = get_logger(__name__)

MAX_ASKED = 10_000
"""Files in one request: with the longest ids such a request has 5 MiB, and NATS takes at most 8. For a batch that names
more files, several requests are sent."""

ABSENT_S = 3.0
"""For so long we do not ask session-api again for a session that it does not know. Otherwise a client that retries at
once would make the store ask with every message, and the next messages wait."""

MAX_ABSENT = 20_000
"""Sessions that are remembered as absent, in about 4 MB."""

ASK_HUNG_EVERY_S = 1.0
"""How often we ask a service that did not answer in time whether it answers again. Until then no batch asks it, because
a batch waits for the answer, and all others for the batch. One stranger who writes to a new session every second would
make every batch take as long as the time-out."""

TRIES = 3
"""How often a question is sent within its time, if no answer comes. NATS hands each to an instance at random. If one of
two instances hangs, 1 of 8 questions gets no answer. More copies would use up the few connections that a service has
for questions: a copy that nobody waits for is worked on all the same."""

AGAIN_BYTES = 256 * 1024
"""A question about 500 messages to strangers has less. A larger one names thousands of files, and has up to 5 MiB: it
is sent once, because sending it again would only delay its answer."""

_ABOUT_NOTHING: Mapping[Rpc, Event] = {
    Rpc.USER_MEET: UserMeet(seen=[], ask=[""]),
    Rpc.SESSION_GET: SessionsQuestion(session_ids=[""]),
    Rpc.FILE_CHECK: FilesQuestion(asks=[FileQuestion(file_id="0" * 32, user_id="")]),
}
"""Small questions that make a service look into its tables. file-api looks up only what has the form of its ids."""


class Requests(Protocol):
    """How questions are asked (tlim_runtime.broker.Broker)."""

    async def request(self, subject: str, payload: bytes, timeout_s: float, /) -> bytes: ...


class ServiceDirectory:
    """Asks session-api and file-api, once per batch.

    It remembers for ABSENT_S that a session does not exist. A kind of question that was not answered in time is asked
    again when `ask_hung` got an answer.
    """

    def __init__(self, broker: Requests, timeout: timedelta, timer: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._timeout = timeout.total_seconds()
        self._absent: TTLCache[str, bool] = TTLCache(MAX_ABSENT, ABSENT_S, timer)
        self._hung: set[Rpc] = set()

    async def known(self, *, seen: Collection[str], ask: Collection[str]) -> set[str]:
        """Note that `seen` exist, and return those of `ask` (normalised user ids) that do.

        Raises DirectoryUnavailable when no usable answer comes in time.
        """
        question = UserMeet(seen=sorted(seen), ask=sorted(ask)).to_bytes()
        try:
            answer = await self._ask(Rpc.USER_MEET, question)
            return set(UsersKnown.from_bytes(answer).known)
        except (BrokerUnavailable, ValidationError) as error:
            raise DirectoryUnavailable(str(error)) from error

    async def sessions(self, session_ids: Collection[str]) -> Mapping[str, AnsweredSession | None]:
        """Return session-api's answer about each session; None where no usable answer comes in time."""
        answers = {one: AnsweredSession(None) for one in session_ids if one in self._absent}
        missing = set(session_ids).difference(answers)
        while missing:
            found = await self._sessions(missing)
            if not found:
                break
            answers |= found
            missing.difference_update(found)
        return {one: answers.get(one) for one in session_ids}

    def heard_of(self, session_ids: Iterable[str]) -> None:
        """Forget that these sessions did not exist, because the stream brought events of them."""
        for session_id in session_ids:
            self._absent.pop(session_id, None)

    async def changes(self, after: int, limit: int) -> SessionChanges:
        """Return what happened to any session after a change; raises DirectoryUnavailable.

        No batch waits for it, so it is asked each time.
        """
        try:
            question = SessionChangesQuestion(after=after, limit=limit).to_bytes()
            return SessionChanges.from_bytes(await self._broker.request(Rpc.SESSION_CHANGES, question, self._timeout))
        except (BrokerUnavailable, ValidationError) as error:
            raise DirectoryUnavailable(str(error)) from error

    async def files(self, asks: Collection[tuple[str, str]]) -> FileFacts | None:
        """Return file-api's answer about files and the users who want to send them; None without an answer."""
        questions = [FileQuestion(file_id=file_id, user_id=user_id) for file_id, user_id in sorted(asks)]
        parts = [questions[start : start + MAX_ASKED] for start in range(0, len(questions), MAX_ASKED)]
        try:
            answers = await asyncio.gather(*(self._files(part) for part in parts))
        except (BrokerUnavailable, ValidationError):
            return None
        owned = {(one.file_id, one.user_id) for answer in answers for one in answer.owned}
        return FileFacts({file_id for answer in answers for file_id in answer.existing}, owned)

    async def ask_hung(self) -> None:
        """Ask about nothing what was not answered in time. If it is answered, or refused at once, batches ask again.

        Raises NoAnswerInTime when all were asked and some still hang, so that it is seen as work that fails.
        """
        await asyncio.gather(*map(self._ask_hung, tuple(self._hung)))
        if self._hung:
            raise NoAnswerInTime(f"no answer on {', '.join(sorted(self._hung))}")

    async def _ask_hung(self, subject: Rpc) -> None:
        try:
            await self._broker.request(subject, _ABOUT_NOTHING[subject].to_bytes(), self._timeout)
        except NoAnswerInTime:
            return
        except BrokerUnavailable as error:
            logger.info("refused at once, so batches ask again", subject=subject.value, reason=str(error))
        self._hung.discard(subject)

    async def _files(self, asks: list[FileQuestion]) -> FilesAnswer:
        question = FilesQuestion(asks=asks).to_bytes()
        return FilesAnswer.from_bytes(await self._ask(Rpc.FILE_CHECK, question))

    async def _ask(self, subject: Rpc, question: bytes) -> bytes:
        """Ask for what a batch needs; raises BrokerUnavailable."""
        if subject in self._hung:
            raise BrokerUnavailable(f"no answer on {subject} a moment ago")
        try:
            return await self._answer(subject, question)
        except NoAnswerInTime as error:
            logger.warning("not asked until it answers again", subject=subject.value, reason=str(error))
            self._hung.add(subject)
            raise

    async def _answer(self, subject: Rpc, question: bytes) -> bytes:
        """Send a question up to TRIES times within its time, and return the first answer; raises BrokerUnavailable."""
        tries = TRIES if len(question) <= AGAIN_BYTES else 1
        async with AsyncExitStack() as stack:
            sent: list[asyncio.Task[bytes]] = []
            for _ in range(tries):
                request = self._broker.request(subject, question, self._timeout)
                sent.append(await stack.enter_async_context(beside(request)))
                pause = self._timeout / tries
                answered, _ = await asyncio.wait(sent, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if answered:  # with several at once, an answer comes before a failure
                    return min(answered, key=lambda one: one.exception() is not None).result()
        raise NoAnswerInTime(f"no answer on {subject} within {self._timeout:g} s")

    async def _sessions(self, session_ids: Collection[str]) -> dict[str, AnsweredSession]:
        """Return the sessions of one answer; empty when no usable answer comes."""
        question = SessionsQuestion(session_ids=sorted(session_ids)).to_bytes()
        try:
            answer = SessionsAnswer.from_bytes(await self._ask(Rpc.SESSION_GET, question))
        except (BrokerUnavailable, ValidationError):
            return {}
        self._absent.update(dict.fromkeys(answer.unknown, True))
        told = {event.session_id: AnsweredSession(event) for event in answer.sessions}
        return {**told, **{one: AnsweredSession(None) for one in answer.unknown}}

"""What the other services know, asked over NATS: who exists, who is in which session, whose a file is."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import timedelta

from pydantic import ValidationError
from tlim_protocol.events import (
    FileQuestion,
    FilesAnswer,
    FilesQuestion,
    SessionAnswer,
    SessionChanges,
    SessionChangesQuestion,
    SessionQuestion,
    UserMeet,
    UsersKnown,
)
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Broker
from tlim_runtime.outages import BrokerUnavailable

from message_store.errors import DirectoryUnavailable
from message_store.values import AnsweredSession, FileFacts

MAX_ASKED = 10_000
"""Files in one request: with the longest ids it has 5 MiB, and NATS takes no more than 8. A batch may name more."""


class ServiceDirectory:
    """Asks session-api and file-api: in one request per batch, about sessions in one for each."""

    def __init__(self, broker: Broker, timeout: timedelta) -> None:
        self._broker = broker
        self._timeout = timeout.total_seconds()

    async def known(self, *, seen: Collection[str], ask: Collection[str]) -> set[str]:
        """Note that `seen` exist, and return those of `ask` (normalised user ids) that do.

        Raises DirectoryUnavailable when no usable answer comes in time.
        """
        question = UserMeet(seen=sorted(seen), ask=sorted(ask)).to_bytes()
        try:
            answer = await self._broker.request(Rpc.USER_MEET, question, self._timeout)
            return set(UsersKnown.from_bytes(answer).known)
        except (BrokerUnavailable, ValidationError) as error:
            raise DirectoryUnavailable(str(error)) from error

    async def sessions(self, session_ids: Collection[str]) -> Mapping[str, AnsweredSession | None]:
        """Return what is said of each session, None for those of which no usable answer comes in time."""
        answers = await asyncio.gather(*(self._session(session_id) for session_id in session_ids))
        return dict(zip(session_ids, answers, strict=True))

    async def changes(self, after: int, limit: int) -> SessionChanges:
        """Return what happened to any session after a change; raises DirectoryUnavailable."""
        try:
            question = SessionChangesQuestion(after=after, limit=limit).to_bytes()
            return SessionChanges.from_bytes(await self._broker.request(Rpc.SESSION_CHANGES, question, self._timeout))
        except (BrokerUnavailable, ValidationError) as error:
            raise DirectoryUnavailable(str(error)) from error

    async def files(self, asks: Collection[tuple[str, str]]) -> FileFacts | None:
        """Return what file-api says of files and the users who want to send them, None when it does not."""
        questions = [FileQuestion(file_id=file_id, user_id=user_id) for file_id, user_id in sorted(asks)]
        parts = [questions[start : start + MAX_ASKED] for start in range(0, len(questions), MAX_ASKED)]
        try:
            answers = await asyncio.gather(*(self._files(part) for part in parts))
        except (BrokerUnavailable, ValidationError):
            return None
        owned = {(one.file_id, one.user_id) for answer in answers for one in answer.owned}
        return FileFacts({file_id for answer in answers for file_id in answer.existing}, owned)

    async def _files(self, asks: list[FileQuestion]) -> FilesAnswer:
        question = FilesQuestion(asks=asks).to_bytes()
        return FilesAnswer.from_bytes(await self._broker.request(Rpc.FILE_CHECK, question, self._timeout))

    async def _session(self, session_id: str) -> AnsweredSession | None:
        try:
            question = SessionQuestion(session_id=session_id).to_bytes()
            answer = await self._broker.request(Rpc.SESSION_GET, question, self._timeout)
            return AnsweredSession(SessionAnswer.from_bytes(answer).session)
        except (BrokerUnavailable, ValidationError):
            return None

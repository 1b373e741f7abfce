"""The log of changes as other services read it. No SQL, no HTTP, no NATS."""

from collections.abc import Collection
from contextlib import aclosing

from tlim_protocol.events import SessionChanges, SessionChangesQuestion, SessionEvent, SessionsAnswer

from session_api.changes_repository import ChangeRepository

MAX_CHANGES = 1_000
"""The most events in one answer of the log; for small groups that is 300 KB."""

MAX_CHANGES_BYTES = 2 * 1024 * 1024
"""An answer of the log ends before the event that would make it larger. A larger event is an answer by itself."""


class ChangeLogService:
    """Answers what happened to sessions, in the order of the commits."""

    def __init__(self, changes: ChangeRepository) -> None:
        self._changes = changes

    async def newest_events(self, session_ids: Collection[str]) -> SessionsAnswer:
        """Return the newest event of each session, deleted or not, and the ids of sessions that never existed.

        When the answer gets larger than MAX_CHANGES_BYTES, the rest of the sessions is left out.
        """
        told: list[SessionEvent] = []
        size = 0
        async with aclosing(self._changes.newest(session_ids)) as found:
            async for event in found:
                size += len(event.to_bytes())
                if told and size > MAX_CHANGES_BYTES:
                    return SessionsAnswer(sessions=told, unknown=[])
                told.append(event)
        return SessionsAnswer(sessions=told, unknown=sorted(set(session_ids).difference(e.session_id for e in told)))

    async def changes(self, question: SessionChangesQuestion) -> SessionChanges:
        """Return the changes of all sessions after a change, in the order of the commits, each as its event told it.

        No change comes before one that was committed earlier. So a reader who continues after the last one misses none.
        """
        events: list[SessionEvent] = []
        size = 0
        limit = min(question.limit, MAX_CHANGES)
        async with aclosing(self._changes.after(question.after, limit + 1)) as log:
            async for event in log:
                size += len(event.to_bytes())
                if len(events) == limit or (events and size > MAX_CHANGES_BYTES):
                    return SessionChanges(events=events, more=True)
                events.append(event)
        return SessionChanges(events=events, more=False)

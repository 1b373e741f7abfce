"""Fetching changes of sessions that the stream did not bring, e.g. after a loss in JetStream or an outage."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tlim_protocol.events import SessionChanges, SessionEvent

from message_store.values import Progress

PAGE = 200
"""Changes asked for at a time; session-api sends fewer when they are large."""

AGAIN_S = 30.0
"""A gap that stays though we have asked is another store's, which may hang. After so long we ask again all the same."""


class ChangeRecorder(Protocol):
    """What applies changes (service.Recorder)."""

    async def applied(self) -> Progress:
        """Return what is applied; raises DatabaseUnavailable."""

    async def record(self, items: Sequence[SessionEvent], /) -> Sequence[str | None]:
        """Apply events like those of the stream."""


class ChangeLog(Protocol):
    """Where the log of changes is (directory.ServiceDirectory)."""

    async def changes(self, after: int, limit: int, /) -> SessionChanges:
        """Return what happened after a change; raises DirectoryUnavailable."""


class CatchUp:
    """Applies missing changes. While session-api gives no answer, `is_due` stays true.

    Only those of sessions that are ours, with `is_ours`: what another store has not applied may wait behind messages
    that came before it, and must not overtake them.
    """

    def __init__(
        self,
        recorder: ChangeRecorder,
        directory: ChangeLog,
        is_ours: Callable[[SessionEvent], bool],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._directory = directory
        self._is_ours = is_ours
        self._timer = timer
        self._asked_behind, self._asked_at = -1, timer()
        self._is_owed = True
        self._gap_behind: int | None = None  # at the last look

    async def is_due(self) -> bool:
        """Tell whether a change may be missing: the last attempt failed, or a gap has stayed since the last look.

        Stores work side by side, so there is often a gap for a moment.
        """
        applied = await self._recorder.applied()
        before, self._gap_behind = self._gap_behind, applied.floor if applied.has_gap else None
        stays = applied.has_gap and applied.floor == before
        was_asked = applied.floor == self._asked_behind and self._timer() - self._asked_at < AGAIN_S
        return self._is_owed or (stays and not was_asked)

    async def run(self) -> None:
        """Ask session-api for changes until there are no more, and apply them.

        Raises DirectoryUnavailable without an answer that can be read; DatabaseUnavailable or BrokerUnavailable when a
        change could not be stored or published. Then it stays due.
        """
        self._is_owed = True
        after = (await self._recorder.applied()).floor
        while True:
            page = await self._directory.changes(after, PAGE)
            await self._recorder.record([event for event in page.events if self._is_ours(event)])
            if not page.more or not page.events:
                self._is_owed = False
                left = await self._recorder.applied()
                self._asked_behind, self._asked_at = left.floor if left.has_gap else -1, self._timer()
                return
            after = page.events[-1].change

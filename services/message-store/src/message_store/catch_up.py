"""Fetching changes of sessions that the stream did not bring, e.g. after a loss in JetStream or an outage."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from tlim_protocol.events import SessionChanges, SessionEvent
from tlim_runtime.logging import get_logger

from message_store.errors import DirectoryUnavailable

logger = get_logger(__name__)

PAGE = 200
"""Changes asked for at a time; session-api sends fewer when they are large."""


class Progress(NamedTuple):
    """How much of session-api's log of changes is applied: all up to `floor`, and those `ahead` of a gap.

    session-api numbers its changes without gaps. But they may be published in another order, or one not at all.
    """

    floor: int
    ahead: frozenset[int] = frozenset()

    def after(self, changes: Iterable[int]) -> "Progress":
        """Return the progress when these are applied too."""
        floor, ahead = self.floor, {change for change in {*self.ahead, *changes} if change > self.floor}
        while floor + 1 in ahead:
            floor += 1
            ahead.discard(floor)
        return Progress(floor, frozenset(ahead))


class ChangeRecorder(Protocol):
    """What applies changes (service.Recorder)."""

    async def applied(self) -> Progress:
        """Return what is applied."""

    async def record(self, items: Sequence[SessionEvent], /) -> Sequence[str | None]:
        """Apply events like those of the stream."""


class ChangeLog(Protocol):
    """Where the log of changes is (directory.ServiceDirectory)."""

    async def changes(self, after: int, limit: int, /) -> SessionChanges:
        """Return what happened after a change; raises DirectoryUnavailable."""


class CatchUp:
    """Applies missing changes. While session-api is down, everything else goes on and `is_due` stays true."""

    def __init__(self, recorder: ChangeRecorder, directory: ChangeLog) -> None:
        self._recorder = recorder
        self._directory = directory
        self._is_owed = True
        self._is_away = False  # so that an outage is logged once, not at every attempt

    async def is_due(self) -> bool:
        """Tell whether a change may be missing: the last attempt failed, or there is a gap."""
        return self._is_owed or bool((await self._recorder.applied()).ahead)

    async def run(self) -> None:
        """Ask session-api for changes until there are no more, and apply them; without an answer it stays due.

        Raises DatabaseUnavailable or BrokerUnavailable when a change could not be stored or published.
        """
        self._is_owed = True
        after = (await self._recorder.applied()).floor
        while True:
            try:
                page = await self._directory.changes(after, PAGE)
            except DirectoryUnavailable as error:
                if not self._is_away:
                    logger.warning("changes of sessions may be missing", after=after, reason=str(error))
                self._is_away = True
                return
            self._is_away = False
            await self._recorder.record(page.events)
            if not page.more or not page.events:
                self._is_owed = False
                return
            after = page.events[-1].change

"""A message that is delivered late may have been recalled meanwhile. Then only its sender's confirmation goes out."""

import time
from collections.abc import Callable, Sequence

from tlim_protocol.events import OutEvent, SeqsAnswer, SeqsQuestion, StoredMessage
from tlim_protocol.registry import REGISTRY
from tlim_protocol.subjects import Rpc
from tlim_runtime.broker import Asker

LATE_MS = 3_000
"""Messages older than this are late. A healthy system delivers in milliseconds, and nobody recalls within this time."""


class Backlog:
    """Asks the store which late chat messages were recalled, as after an outage. It never asks about fresh messages."""

    def __init__(self, store: Asker, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._is_behind = False
        self._late_before = 0

    def fall_behind(self) -> None:
        """Note that a delivery failed. All messages until the next attempt then count as late, even fresh ones."""
        self._is_behind = True

    async def without_recalled(self, events: Sequence[OutEvent], received: Sequence[int]) -> Sequence[OutEvent]:
        """Return the events. A recalled message loses its recipients, so that only its sender is answered.

        `received` holds the time at which the broker got each event, in epoch milliseconds. An event is late when that
        time says so, or its `stored_at`, since it may have been published again. With a store's clock that is behind,
        more is asked than needed. Raises Unavailable when the store does not answer.
        """
        now = int(self._clock() * 1_000)
        if self._is_behind:
            self._is_behind, self._late_before = False, now
        before = max(now - LATE_MS, self._late_before)
        late = [
            event.seq
            for event, received_at in zip(events, received, strict=True)
            if isinstance(event, StoredMessage)
            and min(received_at, event.stored_at) < before
            and _is_overtakable(event)
        ]
        if not late:
            return events
        answer = await self._store.request(Rpc.MESSAGE_RECALLED, SeqsQuestion(seqs=late).to_bytes())
        recalled = frozenset(SeqsAnswer.from_bytes(answer).seqs)
        return [_undelivered(event, recalled) for event in events]


def _is_overtakable(event: StoredMessage) -> bool:
    return event.is_news and REGISTRY[event.envelope.msg_type].is_chat


def _undelivered(event: OutEvent, recalled: frozenset[int]) -> OutEvent:
    if isinstance(event, StoredMessage) and event.seq in recalled:
        return event.model_copy(update={"recipients": [], "is_news": False})
    return event

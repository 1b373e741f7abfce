"""What is delivered late may have been recalled meanwhile: then only its sender's confirmation still goes out."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tlim_protocol.events import OutEvent, SeqsAnswer, SeqsQuestion, StoredMessage
from tlim_protocol.registry import REGISTRY
from tlim_protocol.subjects import Rpc

LATE_MS = 3_000
"""In a healthy system a message is delivered within milliseconds, and nobody recalls what he sent in less than this."""


class RecallRecord(Protocol):
    """Who knows what was recalled: message-store, over the broker's request-reply."""

    async def request(self, subject: str, payload: bytes) -> bytes: ...


class Backlog:
    """Asks the store about chat messages that were stored a while ago, as after an outage; never about fresh ones."""

    def __init__(self, store: RecallRecord, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._is_behind = False
        self._late_before = 0

    def fall_behind(self) -> None:
        """Note that a delivery failed: all that is stored until the next attempt is late, however short the outage."""
        self._is_behind = True

    async def without_recalled(self, events: Sequence[OutEvent], received: Sequence[int]) -> Sequence[OutEvent]:
        """Return the events, those of recalled messages only confirmed; raises Unavailable when nobody answers.

        `received` is when the broker had each, in epoch milliseconds on our clock; `stored_at` is by the store's.
        """
        now = int(self._clock() * 1_000)
        if self._is_behind:
            self._is_behind, self._late_before = False, now
        before = max(now - LATE_MS, self._late_before)
        late = [
            event.seq
            for event, received_at in zip(events, received, strict=True)
            if received_at < before and isinstance(event, StoredMessage) and _is_overtakable(event)
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

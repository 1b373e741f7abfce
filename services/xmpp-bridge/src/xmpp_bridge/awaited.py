"""The store's answers to HTTP requests: here a request of this process waits for the answer, and no device does."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tlim_protocol.events import OutEvent

from xmpp_bridge.translate import NO_JID


class Expected(NamedTuple):
    """What a request publishes as its `reply_to`, and where the answer arrives."""

    reply_to: str
    answer: asyncio.Future[OutEvent]


class Awaited:
    """Hands each out event to the HTTP request that waits for it. The two are matched by `reply_to`."""

    def __init__(self) -> None:
        self._answers: dict[str, asyncio.Future[OutEvent]] = {}

    @contextmanager
    def expect(self) -> Iterator[Expected]:
        """Wait for one answer while in the block."""
        reply_to = f"{NO_JID}{uuid.uuid4().hex}"
        answer = self._answers[reply_to] = asyncio.get_running_loop().create_future()
        try:
            yield Expected(reply_to, answer)
        finally:
            del self._answers[reply_to]

    def settle(self, event: OutEvent) -> None:
        """Hand an out event to the request that waits for it, if there is one. A repeated event does no harm."""
        answer = self._answers.get(event.reply_to or "")
        if answer is not None and not answer.done():
            answer.set_result(event)

"""Remembers what was delivered in the last seconds, to deliver it again after a lost connection.

An XMPP server that keeps messages for people who are away can still lose them when it crashes. A server with our module
keeps none: there a batch in hand is only kept from going on over another connection.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from xmpp_bridge.component import ComponentDown

KEPT_S = 10.0
"""How long a server may still lose what it has taken over. ejabberd still answers pings for a moment while its sessions
already end. It writes messages for absent users to disk a second or two later. Prosody writes them at once."""


@dataclass(slots=True)
class _Batch:
    first: int  # in the stream
    taken_at: float | None = None  # None: not yet


class DeliveredLately:
    """Where in the stream the batches of the last seconds begin. The last of them may still be in hand.

    If the connection drops while a batch is in hand, the rest of it is not sent over the new connection. The whole
    batch is delivered again later, after the batches before it, so that order is kept.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._batches: deque[_Batch] = deque()

    def begin(self, first: int) -> None:
        """Note that the batch which begins at `first` in the stream is in hand."""
        if self._batches and self._batches[-1].taken_at is None:
            self._batches.pop()  # this batch failed before it was delivered, and is now tried again
        self._forget_old()
        self._batches.append(_Batch(first))

    def check(self) -> None:
        """Raise ComponentDown when the connection was lost since the batch in hand began."""
        if not self._batches:
            raise ComponentDown("the XMPP connection was lost")

    def end(self) -> None:
        """Note that the server has taken over the batch in hand; raises ComponentDown like `check`."""
        self.check()
        self._batches[-1].taken_at = self._clock()

    def take_back(self) -> int | None:
        """Return where in the stream delivery begins again after a lost connection; None: go on from where it is."""
        self._forget_old()
        first = self._batches[0].first if self._batches else None
        self._batches.clear()
        return first

    def _forget_old(self) -> None:
        oldest = self._clock() - KEPT_S
        while self._batches and self._batches[0].taken_at is not None and self._batches[0].taken_at < oldest:
            self._batches.popleft()

"""What the XMPP server has taken over can still be lost with it, so what it took last is delivered again after it."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from xmpp_bridge.component import ComponentDown

KEPT_S = 10.0
"""How long a server may lose what it has taken over. ejabberd answers pings for a moment while its sessions end, and
writes what it keeps for somebody who is away to disk a second or two later; Prosody writes at once."""


@dataclass(slots=True)
class _Batch:
    first: int  # in the stream
    taken_at: float | None = None  # None: not yet


class DeliveredLately:
    """Where in the stream the batches of the last seconds begin; the last of them may still be in hand.

    Of a batch that was in hand when the connection was lost nothing more is sent, though there is a new one already:
    it comes again, behind what is before it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._batches: deque[_Batch] = deque()

    def begin(self, first: int) -> None:
        """Note that the batch which begins at `first` in the stream is in hand."""
        if self._batches and self._batches[-1].taken_at is None:
            self._batches.pop()  # it failed before it was delivered, and comes again now
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
        """Return where delivery begins again after a lost connection; None: nothing was delivered lately."""
        self._forget_old()
        first = self._batches[0].first if self._batches else None
        self._batches.clear()
        return first

    def _forget_old(self) -> None:
        oldest = self._clock() - KEPT_S
        while self._batches and self._batches[0].taken_at is not None and self._batches[0].taken_at < oldest:
            self._batches.popleft()

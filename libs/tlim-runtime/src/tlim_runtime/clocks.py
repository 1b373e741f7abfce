"""Compares this process's clock with message-store's. Users see times of several services side by side."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tlim_protocol.events import Time
from tlim_protocol.subjects import Rpc

from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Asker, Responder
from tlim_runtime.health import Health
from tlim_runtime.logging import get_logger

logger = get_logger(__name__)

MAX_SKEW_S = 2.0
"""If clocks differ by more, times from another service look wrong. Clocks with NTP differ by milliseconds."""

COMPARE_EVERY_S = 30.0

UNCOMPARED_S = 300.0
"""After so long without a comparison nobody knows whether the clocks agree. A restart of message-store takes less."""

EXACT_S = 1.0
"""A slower answer is not used: the difference that we compute may be wrong by half of the time that it took."""


Clock = Callable[[], float]
"""Seconds since the epoch."""


def clock_responder(clock: Clock = time.time) -> Responder:
    """Return the responder of `tlim.rpc.clock`, which answers with this process's time."""

    async def answer(_: bytes) -> bytes:
        return Time(now=int(clock() * 1000)).to_bytes()

    return answer


class ClockComparison:
    """Tells how far this clock is from message-store's, which gives the messages their times."""

    def __init__(self, broker: Asker, clock: Clock = time.time) -> None:
        self._broker = broker
        self._clock = clock
        self._warning: str | None = None
        self._compared_at = clock()

    def warning(self) -> str | None:
        """Return what is wrong, None while the clocks agree; for Health.warn."""
        uncompared = self._clock() - self._compared_at
        if self._warning is None and uncompared > UNCOMPARED_S:
            return f"this clock was not compared with message-store's for {uncompared / 60:.0f} minutes"
        return self._warning

    async def compare(self) -> None:
        """Ask for message-store's time, and compare it with our time halfway between question and answer.

        Raises Unavailable without an answer.
        """
        asked = self._clock()
        answer = Time.from_bytes(await self._broker.request(Rpc.CLOCK, b""))
        answered = self._clock()
        if 0 <= answered - asked < EXACT_S:
            self._note((asked + answered) / 2 - answer.now / 1000)

    def _note(self, ahead: float) -> None:
        self._compared_at = self._clock()
        differs = abs(ahead) > MAX_SKEW_S
        if differs != (self._warning is not None):
            (logger.warning if differs else logger.info)("clock compared with message-store's", ahead_s=round(ahead, 1))
        side = "ahead of" if ahead > 0 else "behind"
        self._warning = f"this clock is {abs(ahead):.1f} s {side} message-store's" if differs else None


@asynccontextmanager
async def compared_clock(broker: Asker, health: Health) -> AsyncIterator[None]:
    """Compare the clocks regularly while entered, and warn at /readyz."""
    comparison = ClockComparison(broker)
    health.warn("clock", comparison.warning)
    async with running(Repeated("clock comparison", comparison.compare, COMPARE_EVERY_S)):
        yield

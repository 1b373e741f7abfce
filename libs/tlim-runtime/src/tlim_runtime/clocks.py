"""Whether this process's clock agrees with the other services': times of several of them stand side by side."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from tlim_protocol.events import Time
from tlim_protocol.subjects import Rpc

from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Responder
from tlim_runtime.health import Health
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable

logger = get_logger(__name__)

MAX_SKEW_S = 2.0
"""A time that another service wrote looks wrong beyond this. Clocks that NTP keeps differ by milliseconds."""

COMPARE_EVERY_S = 30.0

EXACT_S = 1.0
"""An answer that took longer says too little: the difference may be half of that."""


class Asker(Protocol):
    """Asks another service (broker.Broker)."""

    async def request(self, subject: str, payload: bytes, /) -> bytes:
        """Return its answer; raises Unavailable without one."""


Clock = Callable[[], float]
"""Seconds since the epoch."""


def clock_responder(clock: Clock = time.time) -> Responder:
    """Return the answer to `tlim.rpc.clock`: what time it is here."""

    async def answer(_: bytes) -> bytes:
        return Time(now=int(clock() * 1000)).to_bytes()

    return answer


class ClockComparison:
    """How far this clock is from message-store's, whose time is that of the log."""

    def __init__(self, broker: Asker, clock: Clock = time.time) -> None:
        self._broker = broker
        self._clock = clock
        self._warning: str | None = None

    def warning(self) -> str | None:
        """Return what is wrong, None while the clocks agree; for Health.warn."""
        return self._warning

    async def compare(self) -> None:
        """Ask for the time and compare at half of the way; raises Unavailable without an answer."""
        asked = self._clock()
        answer = Time.from_bytes(await self._broker.request(Rpc.CLOCK, b""))
        answered = self._clock()
        if 0 <= answered - asked < EXACT_S:
            self._note((asked + answered) / 2 - answer.now / 1000)

    def _note(self, ahead: float) -> None:
        differs = abs(ahead) > MAX_SKEW_S
        if differs != (self._warning is not None):
            (logger.warning if differs else logger.info)("clock compared with message-store's", ahead_s=round(ahead, 1))
        side = "ahead of" if ahead > 0 else "behind"
        self._warning = f"this clock is {abs(ahead):.1f} s {side} message-store's" if differs else None

    async def try_to_compare(self) -> None:
        """Compare; an outage of message-store is no news of the clock, and readiness tells of it elsewhere."""
        with suppress(Unavailable):
            await self.compare()


@asynccontextmanager
async def compared_clock(broker: Asker, health: Health) -> AsyncIterator[None]:
    """Compare while entered, and warn at /readyz."""
    comparison = ClockComparison(broker)
    health.warn("clock", comparison.warning)
    async with running(Repeated("clock comparison", comparison.try_to_compare, COMPARE_EVERY_S)):
        yield

"""Turns for questions of other services, given only as long as the asker waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tlim_runtime.outages import Unavailable


class Overdue(Unavailable):
    """The asker has stopped waiting before the question had its turn."""


class PatientTurns:
    """Works on `at_once` questions at a time. A question that waits longer than its asker does is dropped.

    Otherwise all questions of an outage would be answered after it, for nobody, before the first new one.
    """

    def __init__(self, at_once: int, asker_waits_s: float) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._asker_waits_s = asker_waits_s

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold it while entered; raises Overdue."""
        try:
            async with asyncio.timeout(self._asker_waits_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Overdue("too many questions before it") from error
        try:
            yield
        finally:
            self._turns.release()

"""The slowest pace at which a transfer may go. Without it a client could hold a slot for hours with single bytes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Moved = TypeVar("Moved")


class TransferPace:
    """Waits for the other side of one transfer, and counts what it moves meanwhile.

    Only the time spent waiting for that side counts, so that no client pays for a slow S3. Each `patience_s` seconds
    of this time must bring `bytes_per_s` on average: a fast beginning does not make up for slow hours later.
    """

    def __init__(self, bytes_per_s: int, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = bytes_per_s
        self._patience_s = patience_s
        self._clock = clock
        self._waited_s, self._bytes = 0.0, 0

    async def wait_for(self, step: Awaitable[Moved], size_of: Callable[[Moved], int]) -> Moved:
        """Return what `step` gives; `size_of` tells its bytes.

        Raises TimeoutError when the step takes longer than the patience, or when the bytes since the last reckoning
        are too few.
        """
        began = self._clock()
        async with asyncio.timeout(self._patience_s):
            result = await step
        self._waited_s += self._clock() - began
        self._bytes += size_of(result)
        if self._waited_s >= self._patience_s:
            if self._bytes < self._bytes_per_s * self._waited_s:
                raise TimeoutError
            self._waited_s, self._bytes = 0.0, 0
        return result

"""How often somebody may try: moving windows in this process's memory."""

import math
import time

from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from tlim_runtime.errors import TooManyRequests


class Throttle:
    """One limit, such as `10/minute`, kept for each key on its own."""

    def __init__(self, limit: str, whose: str) -> None:
        self._limit = parse(limit)
        self._whose = whose
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    async def hit(self, key: str) -> None:
        """Count an attempt; raises TooManyRequests, which says after how many seconds the next one will do."""
        if not await self._windows.hit(self._limit, key):
            window = await self._windows.get_window_stats(self._limit, key)
            wait = max(1, math.ceil(window.reset_time - time.time()))
            raise TooManyRequests(f"too many attempts for this {self._whose}", retry_after=wait)

"""The server's clock, passed to the rules as a function so that tests can pass another one."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns epoch milliseconds."""


def now_ms() -> int:
    """Return the server's time in epoch milliseconds."""
    return time.time_ns() // 1_000_000

"""Asking again, as clients do: a server that is busy, or has just lost another one, answers error-010 for a moment."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed
from tenacity.retry import retry_base
from tlim_client.failures import RefusedError
from tlim_protocol.errors import ErrorCode

PATIENCE = 60
"""Seconds within which what was changed over HTTP is seen everywhere, also on a busy machine."""

T = TypeVar("T")


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, RefusedError) and error.code is ErrorCode.UNAVAILABLE


BUSY = retry_if_exception(_is_busy)
"""error-010: nothing was changed, and it is asked again."""


async def patiently(work: Callable[[], Awaitable[T]], retry: retry_base = BUSY) -> T:
    """Return what `work` returns when it does not fail any more; the last failure is raised after PATIENCE seconds."""
    retrying = AsyncRetrying(retry=retry, wait=wait_fixed(0.05), stop=stop_after_delay(PATIENCE), reraise=True)
    async for attempt in retrying:
        with attempt:
            result = await work()
    return result

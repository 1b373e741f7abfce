"""Waiting for a condition: poll until it holds, give up with one sentence."""

import socket
from collections.abc import Callable
from operator import not_

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from tlim_devstack.failures import StackError

POLL_SECONDS = 0.1


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Return as soon as `condition()` is true; StackError naming `what` after `timeout` seconds."""
    polling = Retrying(retry=retry_if_result(not_), stop=stop_after_delay(timeout), wait=wait_fixed(POLL_SECONDS))
    try:
        polling(condition)
    except RetryError:
        raise StackError(f"{what} was not ready after {timeout:.0f} s") from None


def accepts_connections(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens on that TCP port."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

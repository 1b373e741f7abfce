"""Waiting for a condition: poll until it holds, give up with one sentence."""

import socket
import time
from collections.abc import Callable

from tlim_devstack.failures import StackError

POLL_SECONDS = 0.1


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Return as soon as `condition()` is true; StackError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise StackError(f"{what} was not ready after {timeout:.0f} s")
        time.sleep(POLL_SECONDS)


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

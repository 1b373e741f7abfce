"""Waiting for a condition: poll until it holds, give up with one sentence."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import cycle
from operator import not_
from pathlib import Path
from random import SystemRandom

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from tlim_devstack.failures import StackError

POLL_SECONDS = 0.1
FIRST_FOR_CONNECTIONS = 32_768
"""Linux gives ports from here on to outgoing connections, unless net.ipv4.ip_local_port_range says otherwise."""
_LISTENING = range(20_000, FIRST_FOR_CONNECTIONS)
_CANDIDATES = cycle(SystemRandom().sample(_LISTENING, k=len(_LISTENING)))


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
    """Return a TCP port of the loopback address that nobody uses, and that no process of ours was given before.

    It is below FIRST_FOR_CONNECTIONS. So it cannot be lost to a connection before the server listens on it. Nor is it
    given to a test beside us: it is reserved until this process ends.
    """
    return next(port for port in _CANDIDATES if _can_be_bound(port) and _reserve(port))


def _can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _reserve(port: int) -> bool:
    """Lock the byte of the port in a file that all our processes share; return False if another one has it."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True


@cache
def _reservations() -> int:
    """Open that file. It is never closed: the locks would go."""
    file = Path(tempfile.gettempdir()) / f"tlim-ports-{os.getuid()}"
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

"""Starts servers so that they end with the process that started them."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tlim_devstack.failures import StackError
from tlim_devstack.layout import system_program
from tlim_devstack.waiting import wait_until


def dies_with_parent(command: list[str], parent_death: str = "KILL") -> list[str]:
    """Return the command, wrapped so that the kernel signals it when its parent ends, however that ends (prctl(2))."""
    return [str(system_program("setpriv", "util-linux")), "--pdeathsig", parent_death, *command]


class ServerProcess:
    """A server of a test session: one process and its log file. `stop` always ends it."""

    def __init__(self, name: str, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.name, self.log = name, log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # Ctrl-C goes to pytest only, which stops the servers afterwards
            )

    def wait_ready(self, condition: Callable[[], bool], timeout: float = 60) -> None:
        """Wait until `condition()` holds. StackError with the log's last lines if the process ends first."""

        def ready_or_ended() -> bool:
            if self.process.poll() is not None:
                raise StackError(f"{self.name} ended with status {self.process.returncode}:\n{self.tail()}")
            return condition()

        wait_until(ready_or_ended, self.name, timeout)

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, how: signal.Signals = signal.SIGTERM, grace: float = 10) -> None:
        """Ask it to end with the signal `how`, and kill its whole group after `grace` seconds."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

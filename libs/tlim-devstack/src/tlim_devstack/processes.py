"""Starts servers so that they end with the process that started them, and as another user if they must not be root."""

import os
import signal
import subprocess
from collections.abc import Callable
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam

from tlim_devstack.failures import StackError
from tlim_devstack.layout import system_program
from tlim_devstack.waiting import wait_until

UNPRIVILEGED = ("nobody", "nogroup")  # exists on every Debian and Ubuntu
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2  # bit numbers of capabilities(7)


def dies_with_parent(command: list[str], parent_death: str = "KILL") -> list[str]:
    """Return the command, wrapped so that the kernel signals it when its parent ends, however that ends (prctl(2))."""
    return [str(system_program("setpriv", "util-linux")), "--pdeathsig", parent_death, *command]


def not_as_root(command: list[str], *paths: Path, parent_death: str = "INT") -> list[str]:
    """Return a command that runs as `nobody` when we are root, and as our user otherwise.

    `paths` are the directories that were handed over to it. `nobody` cannot reach a clone in /root or in a private
    temporary directory. Then the command keeps one capability, to pass through such directories. With it the command
    can read every file of the machine.
    """
    if os.geteuid() != 0:
        return dies_with_parent(command, parent_death)
    user, group = UNPRIVILEGED
    options = ["--reuid", user, "--regid", group, "--clear-groups"]
    if not all(_reachable_by_others(path) for path in (Path(command[0]), *paths)):
        keep = f"+{_passing_capability()}"
        # PostgreSQL checks its own binary with access(2), which ignores the capability without no_setuid_fixup.
        options += ["--securebits", "+no_setuid_fixup", "--inh-caps", f"-all,{keep}", "--ambient-caps", keep]
    setpriv = str(system_program("setpriv", "util-linux"))
    return [setpriv, *options, "--pdeathsig", parent_death, *command]


def hand_over(directory: Path) -> None:
    """Create `directory` for a program started by `not_as_root`, and give that user everything in it.

    The program may have put symbolic links there. The links are given to it, and never the files that they point at.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        user, group = getpwnam(UNPRIVILEGED[0]).pw_uid, getgrnam(UNPRIVILEGED[1]).gr_gid
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user, group, follow_symlinks=False)
    directory.chmod(0o700)


def close_to_others(home: Path) -> None:
    """Close `home` and everything directly below it to other users. An older release left some of it open.

    If we are root, others may still pass through `home` itself, because PostgreSQL's user has its directory there.
    """
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711 if os.geteuid() == 0 else 0o700)
    for path in home.iterdir():
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)


def _reachable_by_others(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)


def _passing_capability() -> str:
    status = Path("/proc/self/status").read_text().splitlines()
    effective = int(next(line.split()[1] for line in status if line.startswith("CapEff")), 16)
    if effective >> DAC_READ_SEARCH & 1:
        return "dac_read_search"
    if effective >> DAC_OVERRIDE & 1:
        return "dac_override"
    raise StackError("this directory is closed to other users, and servers do not run as root: use another one")


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

"""The process runner (supervisord): its configuration, and the calls over its Unix socket."""

import contextlib
import hashlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import Faults, SupervisorTransport

from tlim_devstack.failures import StackError
from tlim_devstack.private_files import write_private
from tlim_devstack.processes import dies_with_parent
from tlim_devstack.shell import inherited
from tlim_devstack.waiting import wait_until

LONGEST_SOCKET_PATH = 90  # Linux allows 107 bytes; supervisord adds a suffix while it creates the socket
BACKOFF, FATAL = "BACKOFF", "FATAL"
PRIVATE = 0o077  # a umask: other users cannot read what the parts write


@dataclass(frozen=True)
class Program:
    """One supervised process. `stop_seconds` is how long it may take to end before it is killed."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: str = "TERM"
    stop_seconds: int = 15


class Supervisor:
    """supervisord for the programs of one home directory. It restarts programs that end by themselves."""

    def __init__(self, home: Path) -> None:
        self.home, self.logs = home, home / "logs"
        self.socket = _socket_path(home)
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, programs: Iterable[Program]) -> None:
        """Write the configuration (it holds secrets, so only its owner can read it)."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = [_daemon_section(self), *(_program_section(program, self.logs) for program in programs)]
        write_private(self.home / "supervisord.conf", "\n".join(parts))

    def launch(self, *, background: bool) -> None:
        """Start supervisord itself, without its programs. Without `background` it ends with us, however we end."""
        configuration = str(self.home / "supervisord.conf")
        command = [sys.executable, "-m", "tlim_devstack.process_runner", "-n", "-c", configuration]
        with (self.logs / "supervisord.out").open("wb") as output:
            self._process = subprocess.Popen(
                command if background else dies_with_parent(command, "TERM"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to us, and we stop things in order
                cwd=self.home,
                env=inherited(),
                umask=PRIVATE,
            )
        wait_until(self._is_up, "the process runner", timeout=20)

    def _is_up(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise StackError(f"the process runner ended at once: see {self.logs / 'supervisord.out'}")
        return self.is_running()

    def is_running(self) -> bool:
        """Whether supervisord of this home directory answers."""
        try:
            self._call("getState")
        except StackError:
            return False
        return True

    def start(self, *names: str) -> None:
        """Start these programs if they are not running, all at once, without waiting for them to be ready."""
        for name in names:
            try:
                self._call("startProcess", name, False)  # XML-RPC has no names for arguments
            except StackError as error:
                fault = error.__cause__
                if not (isinstance(fault, Fault) and fault.faultCode == Faults.ALREADY_STARTED):
                    raise

    def replace(self, *programs: Program) -> None:
        """Give a running supervisord these programs, in the place of its own of the same names; they are stopped then.

        Its others go on. The configuration has only `programs` afterwards, so it is no good for another launch.
        """
        self.configure(programs)
        self._call("reloadConfig")  # it reads the file, and changes nothing yet
        for program in programs:
            if program.name in self.states():
                self.stop([program.name])
                self._call("removeProcessGroup", program.name)
            self._call("addProcessGroup", program.name)

    def stop(self, names: Sequence[str]) -> None:
        """Stop these programs at once and wait until they have ended."""
        for name in names:
            with contextlib.suppress(StackError):  # was not running
                self._call("stopProcess", name, False)
        ended = {"STOPPED", "EXITED", "FATAL"}
        wait_until(lambda: {self.states()[name] for name in names} <= ended, f"the end of {', '.join(names)}")

    def kill(self, name: str) -> None:
        """Kill a program with SIGKILL; supervisord starts it again. Raises StackError if it does not run."""
        pid = self.pid(name)
        if not pid:
            raise StackError(f"{name} is not running")
        os.kill(pid, signal.SIGKILL)

    def states(self) -> dict[str, str]:
        """Return each program's state in supervisord's words: RUNNING, STOPPED, BACKOFF, FATAL, …."""
        programs = cast("list[dict[str, Any]]", self._call("getAllProcessInfo"))
        return {info["name"]: info["statename"] for info in programs}

    def start_failed_at(self, name: str) -> int:
        """Return the time of the start that has just failed, in epoch seconds; 0 if no start has failed."""
        info = self._info(name)
        return int(info["start"]) if info["statename"] in (BACKOFF, FATAL) else 0

    def pid(self, name: str) -> int:
        """Return the program's process id, 0 when it does not run."""
        return int(self._info(name)["pid"])

    def shutdown(self) -> None:
        """Stop supervisord and the programs that still run. Nothing happens if it has ended already."""
        if self.is_running():
            self._call("shutdown")
            wait_until(lambda: not self.is_running(), "the end of the process runner")
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _info(self, name: str) -> dict[str, Any]:
        return cast("dict[str, Any]", self._call("getProcessInfo", name))

    def _call(self, method: str, *arguments: object) -> object:
        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        try:
            with ServerProxy("http://supervisor", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except Fault as fault:
            raise StackError(f"process runner: {fault.faultString}") from fault
        except (OSError, HTTPException) as error:
            raise StackError("the process runner does not answer") from error
        finally:
            transport.close()


def _socket_path(home: Path) -> Path:
    beside = home / "supervisor.sock"
    if len(str(beside)) <= LONGEST_SOCKET_PATH:
        return beside
    return (
        Path(tempfile.gettempdir()) / f"tlim-{hashlib.sha256(str(home).encode()).hexdigest()[:12]}" / "supervisor.sock"
    )


def _daemon_section(supervisor: Supervisor) -> str:
    return f"""\
[unix_http_server]
file = {_plain(supervisor.socket)}
chmod = 0700

[supervisord]
logfile = {_plain(supervisor.logs / "supervisord.log")}
pidfile = {_plain(supervisor.home / "supervisord.pid")}
childlogdir = {_plain(supervisor.logs)}
logfile_maxbytes = 1MB
logfile_backups = 1

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


def _program_section(program: Program, logs: Path) -> str:
    # After each failed start supervisord waits longer: 1 s, 2 s, and so on. After 6 tries only the keeper goes on.
    environment = ",".join(f"{name}={_quoted(value)}" for name, value in program.environment.items())
    return f"""\
[program:{program.name}]
command = {_plain(shlex.join(program.command))}
environment = {_plain(environment)}
autostart = false
autorestart = true
startsecs = 1
startretries = 6
stopsignal = {program.stop_signal}
stopwaitsecs = {program.stop_seconds}
killasgroup = true
redirect_stderr = true
stdout_logfile = {_plain(logs / (program.name + ".log"))}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 1
"""


def _quoted(value: str) -> str:
    quote = "'" if '"' in value else '"'  # supervisord knows no escapes, so a value can hold only one kind of quote
    if quote in value:
        raise StackError(f"a setting holds both kinds of quotes: {value}")
    return f"{quote}{value}{quote}"


def _plain(text: object) -> str:
    return str(text).replace("%", "%%")  # supervisord expands %(…)s

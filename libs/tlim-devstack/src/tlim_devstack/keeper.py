"""Looks after the programs of a stack, as an orchestrator does: `python -m tlim_devstack.keeper HOME PORT`.

Three things do not come back by themselves, or come back late. First, supervisord gives up a program that fails to
start a few times. PostgreSQL fails so while the disk is full. Second, after one failed write a stream of NATS takes no
more messages until the server is restarted. Its publishers are not told, but its health check shows it: /healthz on
PORT, below the secret path in the environment variable NATS_MONITOR. Third, SeaweedFS looks only once a minute whether
there is space again.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Protocol

from tlim_devstack.failures import StackError
from tlim_devstack.supervision import FATAL, Supervisor

LOOK_EVERY_S = 2.0
"""How often we look. NATS starts and the services reconnect within seconds, so all is back after ten seconds."""

ROOM_BYTES = 64 * 1024**2
"""The free space that is worth a new start. Less is used up at once: PostgreSQL's log grows by 16 MiB at a time, a
stream by blocks of 8 MiB."""

S3_FULL, S3_ROOM = 0.01, 0.02
"""The free part of the disk below which SeaweedFS takes no writes (its volume.minFreeSpace), and the part with which it
is started anew. Between the two nothing is done, so that it is not started again and again."""

NATS, S3 = "nats", "s3"
_RUNNING, _STOPPED = "RUNNING", "STOPPED"


class Programs(Protocol):
    """The programs of a stack: supervision.Supervisor."""

    def states(self) -> Mapping[str, str]: ...
    def start(self, *names: str) -> None: ...
    def stop(self, names: list[str]) -> None: ...
    def kill(self, name: str) -> None: ...


class Keeper:
    """Starts programs again that supervisord has given up, NATS when it has lost a write, and S3 after a full disk.

    NATS is stopped while the disk is full, so that its publishers notice at once. `nats_is_broken` says whether NATS
    has lost a write, `has_room` whether there is space again, `s3_free` which part of S3's disk is free. The file
    `held` is there while the keeper holds NATS stopped, so that the next keeper starts that NATS, and none that
    somebody else has stopped.
    """

    def __init__(
        self,
        programs: Programs,
        *,
        nats_is_broken: Callable[[], bool],
        has_room: Callable[[], bool],
        s3_free: Callable[[], float],
        held: Path,
    ) -> None:
        self._programs = programs
        self._nats_is_broken = nats_is_broken
        self._has_room = has_room
        self._held = held
        self._nats_is_held = held.exists()
        self._s3_free = s3_free
        self._s3_is_full = False

    def look(self) -> None:
        """Look once, and do what is due; raises StackError when supervisord does not answer."""
        states = self._programs.states()
        given_up = [name for name, state in states.items() if state == FATAL]
        if given_up:
            _say(f"starting again: {', '.join(given_up)}")
            self._programs.start(*given_up)
        if states[NATS] == _RUNNING:
            self._hold(self._nats_is_broken())
            if self._nats_is_held:
                _say("NATS has lost a write: it is stopped, and started again when there is space")
                self._programs.stop([NATS])
        if self._nats_is_held and states[NATS] in (_RUNNING, _STOPPED) and self._has_room():
            self._programs.start(NATS)
        self._look_at_s3(runs=states[S3] == _RUNNING)

    def _look_at_s3(self, *, runs: bool) -> None:
        free = self._s3_free()
        if free < S3_FULL:
            self._s3_is_full = True
        elif self._s3_is_full and free >= S3_ROOM and runs:
            _say("there is space again: S3 is started anew")
            self._programs.kill(S3)  # and supervisord starts it: it must not stay stopped if we end just now
            self._s3_is_full = False

    def _hold(self, held: bool) -> None:
        self._nats_is_held = held
        if not held:
            self._held.unlink(missing_ok=True)
            return
        try:
            self._held.touch()
        except OSError as error:  # the disk is full
            _say(f"if the keeper ends now, NATS stays stopped: {error}")


class NatsHealth:
    """Asks a NATS server on its monitoring port for the page at `path`.

    `pid` returns the server's process id of this moment.
    """

    def __init__(self, port: int, path: str, pid: Callable[[], int]) -> None:
        self._port = port
        self._path = path
        self._pid = pid
        self._well_pid = 0

    def is_broken(self) -> bool:
        """Whether the server has lost a write, or its JetStream.

        A server that does not answer counts as sound. A server that has just started may read its streams for long, and
        says "not enabled" meanwhile. So that counts only if the same process was sound before.
        """
        reason = self._ask()
        if reason == "":
            self._well_pid = self._pid()
        lost_jetstream = "not enabled" in (reason or "") and self._well_pid == self._pid()
        return lost_jetstream or "write error" in (reason or "")

    def _ask(self) -> str | None:
        """Return what is wrong: an empty string if all is well, None without an answer."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=2)
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
            return "" if answer.status == HTTPStatus.OK else str(json.loads(answer.read()).get("error"))
        except (OSError, HTTPException, ValueError):
            return None
        finally:
            connection.close()


def has_room(directory: Path) -> bool:
    """Whether there is space to work with on the disk of that directory."""
    return shutil.disk_usage(directory).free >= ROOM_BYTES


def free_part(directory: Path) -> float:
    """Return which part of the disk of that directory is free, from 0 to 1."""
    usage = shutil.disk_usage(directory)
    return usage.free / usage.total


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    """Look after the stack whose home directory and NATS monitoring port are the arguments, for ever."""
    home, port = Path(sys.argv[1]), int(sys.argv[2])
    programs = Supervisor(home)
    health = NatsHealth(port, f"/{os.environ['NATS_MONITOR']}/healthz", lambda: programs.pid(NATS))
    keeper = Keeper(
        programs,
        nats_is_broken=health.is_broken,
        has_room=lambda: has_room(home),
        s3_free=lambda: free_part(home / S3),
        held=home / "nats-is-held",
    )
    while True:
        time.sleep(LOOK_EVERY_S)
        try:
            keeper.look()
        except StackError as error:
            _say(str(error))


if __name__ == "__main__":
    main()

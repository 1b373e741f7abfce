"""Servers from the wheels for one test. The test may stop, kill and freeze them, and start them on the same data."""

import os
import secrets
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

from tlim_devstack import nats, postgres
from tlim_devstack.processes import ServerProcess, dies_with_parent
from tlim_devstack.servers import UNSAFE_BUT_FAST, NatsServer, PostgresServer, nats_passwords, role_passwords
from tlim_devstack.waiting import free_port


@dataclass
class RestartableNats:
    """A NATS server with the users of `NatsServer`. It makes its `directory` itself."""

    directory: Path
    port: int = field(default_factory=free_port)
    passwords: dict[str, str] = field(default_factory=nats_passwords)
    _process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The URL of the server, the same after each start."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def server(self) -> NatsServer:
        """This server in the form of the shared test server."""
        return NatsServer(self.url, self.passwords)

    def start(self) -> None:
        """Start the server on the existing data, and return when it answers."""
        config = nats.write_config(self.directory, self.passwords)
        command = dies_with_parent(nats.command(config, self.directory / "data", self.port))
        self._process = ServerProcess("NATS", command, self.directory / "nats.log")
        self._process.wait_ready(lambda: nats.greets(self.port))

    def reload(self, passwords: dict[str, str]) -> None:
        """Let the running server take other passwords."""
        nats.write_config(self.directory, passwords)
        self._signal(signal.SIGHUP)

    def freeze(self) -> None:
        """Let the server keep its connections in silence. When this returns, it answers nothing more."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            os.waitid(os.P_PID, self._process.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """Let the server go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the server. As in a power cut, it writes nothing more."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server in good order. Nothing happens if it has ended already."""
        self._end(signal.SIGTERM)

    def keep_state(self) -> None:
        """Copy the data on disk, to be put back as after a power cut. Stop the server first, for a consistent copy."""
        shutil.copytree(self.directory / "data", self.directory / "kept")

    def lose_everything_since_kept(self) -> None:
        """Replace the data by the copy of `keep_state`."""
        shutil.rmtree(self.directory / "data")
        shutil.copytree(self.directory / "kept", self.directory / "data")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.process.send_signal(number)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.stop(how)
            self._process = None


class RestartablePostgres:
    """A PostgreSQL server with the roles of `PostgresServer`. It makes its `directory` itself."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = free_port()
        admin = postgres.Login("127.0.0.1", self._port, postgres.SUPERUSER, secrets.token_hex(16))
        self.server = PostgresServer(admin, role_passwords())
        self._process: ServerProcess | None = None
        directory.mkdir()
        postgres.create_cluster(directory / "data", admin.password)
        self.start()
        postgres.create_roles(admin, self.server.passwords)

    def start(self) -> None:
        """Start the server on the existing data, and return when it answers."""
        command = postgres.command(self._directory / "data", self._port, *UNSAFE_BUT_FAST)
        self._process = ServerProcess("PostgreSQL", command, self._directory / "postgres.log")
        self._process.wait_ready(lambda: postgres.answers(self.server.admin))

    def stop(self) -> None:
        """Stop the server in good order, and end all its connections. Nothing happens if it has ended already."""
        if self._process is not None:
            self._process.stop(signal.SIGINT)
            self._process = None

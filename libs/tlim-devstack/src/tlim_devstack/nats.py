"""NATS with JetStream: its configuration from the protocol library's permissions, and the command that runs it."""

import socket
from collections.abc import Mapping
from pathlib import Path

from tlim_admin.nats_users import users_document

from tlim_devstack.layout import DEPLOY, program
from tlim_devstack.private_files import write_private

TEST_USER = "tests"  # may do everything; exists only in test sessions


def write_config(directory: Path, passwords: Mapping[str, str], monitor: str = "monitor") -> Path:
    """Put nats.conf and the users it includes into `directory`; returns the path of nats.conf.

    `monitor` is the first part of the monitoring pages' path. They ask for no password, so the stack makes it a secret.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_private(directory / "users.conf", users_document(passwords))
    config = directory / "nats.conf"
    write_private(config, f'http_base_path: "/{monitor}"\n{(DEPLOY / "nats" / "nats.conf").read_text()}')
    return config


def command(config: Path, data: Path, port: int, monitor: int | None = None) -> list[str]:
    """Return the command line of a server on the loopback address that keeps its streams in `data`.

    `monitor` is the port of its HTTP monitoring. The keeper asks for its health check there.
    """
    listening = ["-a", "127.0.0.1", "-p", str(port), *([] if monitor is None else ["-m", str(monitor)])]
    return [str(program("nats-server")), "-c", str(config), *listening, "-sd", str(data)]


def greets(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a NATS server answers on that port. It sends INFO to every new connection."""
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False

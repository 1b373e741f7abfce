"""The ports of a stack. TLIM_PORT_<NAME> overrides each of them, and a start checks that they are free."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

from tlim_devstack.failures import StackError
from tlim_devstack.waiting import free_port

_HIGHEST = 65_535


def _port(default: int, purpose: str) -> int:
    port: int = field(default=default, metadata={"purpose": purpose})
    return port


@dataclass(frozen=True)
class Ports:
    """All ports. Only the first four are for clients. Over the others the parts of the stack talk to each other."""

    gateway: int = _port(9090, "HTTP gateway")
    files: int = _port(9091, "HTTP gateway, files to and from S3")
    xmpp: int = _port(5222, "XMPP clients")
    websocket: int = _port(5280, "XMPP over WebSocket")
    nats: int = _port(14222, "NATS")
    nats_monitor: int = _port(14223, "NATS monitoring")
    postgres: int = _port(15432, "PostgreSQL")
    s3: int = _port(18333, "S3")
    component: int = _port(15347, "XMPP component")
    xmpp_api: int = _port(15281, "ejabberd API")
    session_api: int = _port(18101, "session-api")
    file_api: int = _port(18102, "file-api")
    message_store: int = _port(18103, "message-store")
    xmpp_bridge: int = _port(18104, "xmpp-bridge")
    s3_master: int = _port(18334, "S3 master")
    s3_master_grpc: int = _port(18335, "S3 master, gRPC")
    s3_volume: int = _port(18336, "S3 volume server")
    s3_volume_grpc: int = _port(18337, "S3 volume server, gRPC")
    s3_filer: int = _port(18338, "S3 filer")
    s3_filer_grpc: int = _port(18339, "S3 filer, gRPC")
    s3_grpc: int = _port(18340, "S3, gRPC")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read TLIM_PORT_GATEWAY and the like; StackError for a value that is not a port."""
        return cls(**{item.name: _chosen(item.name, item.default, environment) for item in fields(cls)})

    @classmethod
    def random(cls) -> Self:
        """Return free ports, for a stack beside others."""
        return cls(**{item.name: free_port() for item in fields(cls)})

    def for_another_node(self) -> Self:
        """Return the same ports for another node of the XMPP server, which has free ports of its own."""
        return replace(self, **{name: free_port() for name in ("xmpp", "websocket", "component", "xmpp_api")})

    @property
    def s3_inner(self) -> tuple[int, ...]:
        """The ports between the parts of SeaweedFS, in the order of tlim_devstack.s3.command."""
        http = ((self.s3_master, self.s3_master_grpc), (self.s3_volume, self.s3_volume_grpc))
        return (*http[0], *http[1], self.s3_filer, self.s3_filer_grpc, self.s3_grpc)

    def check_free(self) -> None:
        """Raise StackError if a port is taken. It names the first such port, its purpose, and how to change it."""
        taken: dict[int, str] = {}
        for item in fields(self):
            port = getattr(self, item.name)
            variable = variable_of(item.name)
            if port in taken:
                raise StackError(f"{variable} and {taken[port]} are both {port}: give them different ports")
            taken[port] = variable
            if not _is_free(port):
                purpose = item.metadata["purpose"]
                raise StackError(f"port {port} ({purpose}) is taken: free it, or set {variable} to another port")


def variable_of(name: str) -> str:
    """Return the environment variable that overrides the port of that name."""
    return f"TLIM_PORT_{name.upper()}"


def _chosen(name: str, default: object, environment: Mapping[str, str]) -> int:
    text = environment.get(variable_of(name)) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _HIGHEST:
        raise StackError(f"{variable_of(name)} is {text!r}: it must be a port number, 1 to {_HIGHEST}")
    return int(text)


def _is_free(port: int) -> bool:
    # Bind to all addresses, not only to loopback: a program that listens on 0.0.0.0 has the port as well.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except PermissionError as error:
            raise StackError(f"port {port} needs privileges: choose one above 1023") from error
        except OSError:
            return False
        return True

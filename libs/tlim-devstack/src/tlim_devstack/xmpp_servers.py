"""What the XMPP servers have in common: their settings, their interface, and their configuration templates."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from string import Template
from typing import Protocol

from tlim_devstack.credentials import Credentials
from tlim_devstack.failures import StackError
from tlim_devstack.layout import DEPLOY
from tlim_devstack.ports import Ports
from tlim_devstack.private_files import write_private
from tlim_devstack.supervision import Program

DOMAIN = "im.itonglian.com"
COMPONENT = f"bridge.{DOMAIN}"


def component_of(bridge: str) -> str:
    """Return the component of a bridge, if each has one of its own: `xmpp-bridge-2` is bridge-2.DOMAIN."""
    return f"{bridge.removeprefix('xmpp-')}.{DOMAIN}"


@dataclass(frozen=True)
class XmppSettings:
    """Where an XMPP server keeps its data and listens; `certificate` holds the certificate and its key."""

    home: Path
    ports: Ports
    credentials: Credentials
    certificate: Path
    public_address: str

    @property
    def is_public(self) -> bool:
        """Whether other machines can connect. Then everything uses TLS, also WebSocket."""
        try:
            return not ip_address(self.public_address).is_loopback
        except ValueError:
            raise StackError(f"TLIM_BIND is {self.public_address!r}: it must be an IP address") from None


class XmppServer(Protocol):
    """An XMPP server as the stack needs it."""

    package: str
    diverts: bool
    """Whether a module of ours hands tlim messages to the bridge. If not, clients address the bridge."""

    @property
    def accounts_api(self) -> str | None:
        """The URL where session-api makes accounts (ejabberd's mod_http_api); None if the server has no such API."""

    def prepare(self) -> Program:
        """Write the configuration; return the server."""

    def ready(self, log: str) -> bool:
        """Whether it accepts clients and our module is loaded; `log` is the server's output."""

    def register(self, user: str, password: str) -> None:
        """Create an account. An existing account keeps its password. StackError with the server's own words."""


def fill_template(template: str, target: Path, values: dict[str, object]) -> Path:
    """Write deploy/`template` to `target` with ${name} replaced; only its owner can read it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    text = Template((DEPLOY / template).read_text()).substitute({name: str(value) for name, value in values.items()})
    write_private(target, text)
    return target

"""The system that is tortured: a stack with further bridges, a standby of message-store, and ways that can be cut."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlim_client.connection import ServerAddress
from tlim_devstack.ports import Ports
from tlim_devstack.services import GATEWAY
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import free_port

from tests.torture.plan import Parts
from tests.torture.relays import Relays

MANY = "100000/minute"
LIMITS = {"TLIM_RECALL_WINDOW": "PT1H", "TLIM_TOKEN_ATTEMPTS_PER_ADDRESS": MANY}
BRIDGE, STORE = "xmpp-bridge", "message-store"


class System:
    """A stack, its parts, and the ways of its processes to servers."""

    def __init__(self, stack: Stack, parts: Parts, relays: Relays) -> None:
        self.stack, self.parts, self.relays = stack, parts, relays
        self.joined = {BRIDGE, STORE}
        """The processes of the two services that are to run now."""

    @property
    def client_ports(self) -> list[int]:
        """Where clients reach the XMPP servers."""
        return [self.stack.ports.xmpp]

    def door(self, port: int) -> ServerAddress:
        """Return the address of the XMPP server at a port."""
        at = self.stack.addresses
        return ServerAddress(at.xmpp_host, port, at.domain, at.ca_file, at.addressed)

    def all_ready(self) -> None:
        """Wait until everything that is to run is ready."""
        parts, services = self.parts, (*self.stack.services.names, GATEWAY)
        further = set(parts.further)
        for name in (*parts.records, *parts.nodes, *services):
            if name not in further or name in self.joined:
                self.stack.wait_ready(name)


def _names(service: str, count: int) -> list[str]:
    return [service, *(f"{service}-{number}" for number in range(2, count + 1))]


@contextmanager
def running_system(home: Path, xmpp: str, *, bridges: int, stores: int) -> Iterator[System]:
    """Run a system with its first bridge and its first store. The others join later. Its data stays."""
    ports = Ports.random()
    parts = Parts(_names(BRIDGE, bridges), _names(STORE, stores), [xmpp])
    targets = {
        (part, server): getattr(ports, server)
        for part in (*parts.bridges, *parts.stores)
        for server in parts.servers(part)
    }
    further = {name: free_port() for name in parts.further}
    with Relays(targets) as relays:
        stack = Stack(home, ports, xmpp, environment=LIMITS, further=further, through=relays.ports)
        stack.start()
        try:
            yield System(stack, parts, relays)
        finally:
            stack.stop()

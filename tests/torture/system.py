"""The system that is tortured: a stack with further bridges and stores, and ways that can be cut."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from tlim_client.connection import ServerAddress
from tlim_devstack.ports import Ports
from tlim_devstack.services import GATEWAY
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import free_port

from tests.torture.plan import Parts
from tests.torture.relays import Relays, Way

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
        further = self.stack.further_nodes.values()
        return [self.stack.ports.xmpp, *(node.settings.ports.xmpp for node in further)]

    def door(self, port: int) -> ServerAddress:
        """Return the address of the XMPP server at a port."""
        at = self.stack.addresses
        return ServerAddress(at.xmpp_host, port, at.domain, at.ca_file, at.addressed)

    def all_ready(self) -> None:
        """Wait until everything that is to run is ready."""
        parts, services = self.parts, (*self.stack.services.names, GATEWAY)
        further = set(parts.further)
        for name in dict.fromkeys((*parts.alone, *parts.nodes, *services)):
            if name not in further or name in self.joined:
                self.stack.wait_ready(name)


def _names(service: str, count: int) -> list[str]:
    return [service, *(f"{service}-{number}" for number in range(2, count + 1))]


def _targets(ports: Ports, homes: Mapping[str, Ports], parts: Parts) -> dict[Way, int]:
    """Return the port behind each way. `homes` are the nodes of the XMPP server to which the bridges belong."""
    return {
        (part, server): getattr(homes.get(part, ports), server)
        for part in (*parts.bridges, *parts.stores, *parts.apis)
        for server in parts.servers(part)
    }


@contextmanager
def running_system(place: Path, xmpp: str, *, nodes: int, bridges: int, stores: int) -> Iterator[System]:
    """Run a system with all nodes, its first bridge and its first store. The others join later. Its data stays."""
    ports = Ports.random()
    further_nodes = [ports.for_another_node() for _ in range(nodes - 1)]
    parts = Parts(_names(BRIDGE, bridges), _names(STORE, stores), _names(xmpp, nodes))
    further = {name: free_port() for name in parts.further}
    homes = dict(zip(parts.bridges, cycle([ports, *further_nodes]), strict=False))
    logins: dict[Way, int] = {(bridge, "xmpp"): home.xmpp for bridge, home in homes.items()}
    with Relays(_targets(ports, homes, parts), parts.nodes if further_nodes else ()) as relays:
        stack = Stack(
            place,
            ports,
            xmpp,
            environment=LIMITS,
            further=further,
            through={**relays.ports, **logins},
            further_nodes=further_nodes,
        )
        stack.start()
        try:
            for node in parts.nodes[1:]:
                stack.start_service(node)
            yield System(stack, parts, relays)
        finally:
            stack.stop()

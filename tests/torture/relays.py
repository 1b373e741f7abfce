"""The ways from processes to servers, as relays in a process of their own: busy clients do not slow them down."""

import asyncio
import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Self

from tlim_devstack.ejabberd import MAPPER
from tlim_devstack.node_network import NodeNetwork
from tlim_devstack.severable import Severable

from tests.torture.plan import How

Way = tuple[str, str]
"""The name of a process, and that of the server's port; or the names of two nodes of ejabberd."""

MEND = "mend"


class Relays:
    """One relay for each way; `targets` are the servers' ports. Between two of `nodes` there is a way as well."""

    def __init__(self, targets: Mapping[Way, int], nodes: Sequence[str] = ()) -> None:
        self._targets, self._nodes = dict(targets), list(nodes)
        self.ports: dict[Way, int] = {}

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_relay, args=(self._targets, self._nodes, theirs), daemon=True)
        self._process.start()
        self.ports = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()

    def disturb(self, way: Way, how: How) -> None:
        """Cut a way, or let it fall silent."""
        self._tell(way, how)

    def mend(self, way: Way) -> None:
        """Let everything pass again."""
        self._tell(way, MEND)

    def _tell(self, way: Way, what: str) -> None:
        self._pipe.send((way, what))


def _relay(targets: Mapping[Way, int], nodes: Sequence[str], pipe: Connection) -> None:
    asyncio.run(_serve(targets, nodes, pipe))


async def _serve(targets: Mapping[Way, int], nodes: Sequence[str], pipe: Connection) -> None:
    relays = {way: Severable(f"tcp://127.0.0.1:{port}") for way, port in targets.items()}
    for relay in relays.values():
        await relay.mend()
    network = await NodeNetwork(nodes).__aenter__()  # it ends with this process
    mappers = {(node, MAPPER): port for node, port in network.ports.items()}
    pipe.send({**{way: relay.port for way, relay in relays.items()}, **mappers})
    both = {way: [relay] for way, relay in relays.items()}
    both |= {way: [relay, network.ways[way[::-1]]] for way, relay in network.ways.items()}
    while True:
        way, what = await asyncio.to_thread(pipe.recv)
        for relay in both[way]:
            match what:
                case How.CUT:
                    await relay.cut()
                case How.HUSH:
                    relay.hush()
                case _:
                    await relay.mend()

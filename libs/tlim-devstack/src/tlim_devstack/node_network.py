"""The network between Erlang nodes of this machine, in which a test can cut or silence what is between two of them."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Self

from tlim_devstack.severable import Severable

# Requests and answers of epmd (Erlang's documentation, "Distribution Protocol")
_ALIVE_REQUEST, _ALIVE_ANSWER = 120, 118
_PORT_REQUEST, _PORT_ANSWER = 122, 119
_FOUND, _UNKNOWN = 0, 1


class _Node(NamedTuple):
    place: str
    registration: bytes
    """What the node has said of itself behind the kind of the request and its port. An answer repeats it."""


class NodeNetwork:
    """Each node gets a port mapper of its own, in place of epmd, and it is told ports of relays there.

    `places` are names for the nodes. `ports` has the mapper of each, and `ways` the relay from each node to each other
    one. Either node of a pair may have connected to the other one, so a partition concerns two relays. `looked` counts
    how often each has looked for another one.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self.ways = {way: Severable("tcp://127.0.0.1:0") for way in itertools.permutations(places, 2)}
        self.ports = dict.fromkeys(places, 0)
        self.looked = Counter[str]()
        self._nodes: dict[bytes, _Node] = {}
        self._starts = itertools.count(int(time.time()))
        self._mappers: list[asyncio.Server] = []

    async def __aenter__(self) -> Self:
        for way in self.ways.values():
            await way.mend()
        for place in self.ports:
            mapper = await asyncio.start_server(partial(self._serve, place), "127.0.0.1", 0)
            self._mappers.append(mapper)
            self.ports[place] = mapper.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for mapper in self._mappers:
            mapper.close()
        for way in self.ways.values():
            await way.cut()

    async def _serve(self, place: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            if request[0] == _ALIVE_REQUEST:
                writer.write(self._register(place, port=int.from_bytes(request[1:3]), registration=request[3:]))
                await reader.read()  # the node is there until the connection ends
            elif request[0] == _PORT_REQUEST:
                writer.write(self._tell(place, request[1:]))
                await writer.drain()
        writer.close()

    def _register(self, place: str, *, port: int, registration: bytes) -> bytes:
        for (_, target), way in self.ways.items():
            if target == place:
                way.lead_to(port)
        length = int.from_bytes(registration[6:8])  # behind type, protocol, and the highest and the lowest version
        self._nodes[registration[8 : 8 + length]] = _Node(place, registration)
        start = next(self._starts) % 2**32  # tells a node's processes from those of the same node before
        return bytes([_ALIVE_ANSWER, _FOUND]) + start.to_bytes(4)

    def _tell(self, asking: str, name: bytes) -> bytes:
        node = self._nodes.get(name)
        self.looked[asking] += 1
        if node is None or node.place == asking:
            return bytes([_PORT_ANSWER, _UNKNOWN])
        port = self.ways[asking, node.place].port
        return bytes([_PORT_ANSWER, _FOUND]) + port.to_bytes(2) + node.registration

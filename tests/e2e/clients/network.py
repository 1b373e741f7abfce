"""A network between a device and its server that can fall silent: nothing passes, and neither side is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Network:
    """Forwards connections to a server."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._carrying: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []

    def fall_silent(self) -> None:
        """Carry nothing more over the connections that there are; they stay open. New ones work."""
        for task in self._carrying:
            task.cancel()

    def move(self, host: str, port: int) -> None:
        """Forward new connections to another server."""
        self._target = (host, port)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection, both ways."""
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._ends += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(_copy(source, sink))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def close(self) -> None:
        """Close all connections."""
        self.fall_silent()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        for end in self._ends:
            end.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(64 * 1024):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def network_to(host: str, port: int) -> AsyncIterator[tuple[Network, int]]:
    """Yield a network to a server, and the local port on which a device connects to it."""
    network = Network(host, port)
    server = await asyncio.start_server(network.carry, "127.0.0.1", 0)
    try:
        yield network, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await network.close()

"""A connection to a server that a test can cut or silence, while all others still reach that server."""

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit

from tlim_devstack.waiting import free_port


class Severable:
    """A TCP relay on a port of its own. `cut` ends all connections and accepts no more; `hush` carries nothing more.

    `mend` makes both undone.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 0
        self._own_port = free_port()  # it stays ours while the relay is cut: no connection gets it meanwhile
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._carries = asyncio.Event()
        self.carried = 0
        """Bytes that were passed on, both ways."""

    @property
    def url(self) -> str:
        """The URL of the server through the relay."""
        return f"nats://127.0.0.1:{self._own_port}"

    @property
    def port(self) -> int:
        """The port of the relay."""
        return self._own_port

    def lead_to(self, port: int) -> None:
        """Lead new connections to another port: the server has it since it was started again."""
        self._port = port

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def mend(self) -> None:
        """Accept connections. What was held back since `hush` goes on."""
        self._carries.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._own_port)

    async def cut(self) -> None:
        """End all connections and accept no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()
        self._carries.set()  # what was held back goes nowhere now

    def hush(self) -> None:
        """Hold everything back. Connections stay open, and new ones are accepted: a network that drops packets."""
        self._carries.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        await self._carries.wait()
        try:
            answers, there = await asyncio.open_connection(self._host, self._port)
        except OSError:  # the server itself is away
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(there)
        await asyncio.gather(self._copy(reader, there), self._copy(answers, writer))
        self._open -= {writer, there}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy from reader to writer. At the end of this direction, end the other one as well."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._carries.wait()
                writer.write(data)
                await writer.drain()
                self.carried += len(data)
        await self._carries.wait()
        writer.transport.abort()

"""A connection to a server that a test can cut, while all others still reach that server."""

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit


class Severable:
    """A TCP relay on a port of its own. `cut` ends all connections and accepts no more. `mend` accepts them again."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 0
        self._own_port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The URL of the server through the relay."""
        return f"nats://127.0.0.1:{self._own_port}"

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def mend(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections and accept no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._open:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, there = await asyncio.open_connection(self._host, self._port)
        except OSError:  # the server itself is away
            writer.transport.abort()
            return
        pair = {writer, there}
        self._open |= pair
        await asyncio.gather(_copy(reader, there), _copy(answers, writer))
        self._open -= pair


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy from reader to writer. At the end of this direction, end the other one as well."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()

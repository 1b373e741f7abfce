"""A door to a server that lets nobody in without TLS. For tests: the servers of the wheels speak none."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

POSTGRES_ASKS, POSTGRES_AGREES = bytes((0, 0, 0, 8, 4, 210, 22, 47)), b"S"
"""SSLRequest and its answer (PostgreSQL's frontend/backend protocol, "SSL Session Encryption")."""


def tls_of(certificate: Path) -> ssl.SSLContext:
    """Return what a server with this certificate and key, in one file, does about TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@asynccontextmanager
async def tls_door(
    host: str, port: int, certificate: Path, *, asks: bytes = b"", agrees: bytes = b""
) -> AsyncIterator[int]:
    """Give the port of a door on the loopback address. A client says `asks` before TLS begins, and hears `agrees`."""

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(asks)) == asks:
                writer.write(agrees)
                await writer.start_tls(tls_of(certificate))
                inner, outer = await asyncio.open_connection(host, port)
                await asyncio.gather(_pass_on(reader, outer), _pass_on(inner, writer))
        writer.close()

    async with await asyncio.start_server(enter, "127.0.0.1", 0) as door:
        yield door.sockets[0].getsockname()[1]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

"""A door to a server that lets nobody in without TLS. For tests: the servers of the wheels speak none."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

POSTGRES_ASKS, POSTGRES_AGREES = bytes((0, 0, 0, 8, 4, 210, 22, 47)), b"S"
"""SSLRequest and its answer (PostgreSQL's frontend/backend protocol, "SSL Session Encryption")."""

_NAMES, _BOUND = b"\x00\x00\x00\x0aSCRAM-SHA-256\0", b"SCRAM-SHA-256-PLUS\0"
"""AuthenticationSASL behind its length, with the only login of a server without TLS; and the login that one with TLS
offers before it."""


def tls_of(certificate: Path) -> ssl.SSLContext:
    """Return what a server with this certificate and key, in one file, does about TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@asynccontextmanager
async def tls_door(
    host: str,
    port: int,
    certificate: Path,
    *,
    asks: bytes = b"",
    agrees: bytes = b"",
    says: Callable[[bytes], bytes] = bytes,
) -> AsyncIterator[int]:
    """Give the port of a door on the loopback address. A client says `asks` before TLS begins, and hears `agrees`.

    `says` changes the first words of the server.
    """

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(asks)) == asks:
                writer.write(agrees)
                await writer.start_tls(tls_of(certificate))
                inner, outer = await asyncio.open_connection(host, port)
                await asyncio.gather(_pass_on(reader, outer), _pass_on(inner, writer, says))
        writer.close()

    async with await asyncio.start_server(enter, "127.0.0.1", 0) as door:
        yield door.sockets[0].getsockname()[1]


def postgres_door(host: str, port: int, certificate: Path) -> AbstractAsyncContextManager[int]:
    """Give the port of a door that is as a PostgreSQL with TLS of its own."""
    return tls_door(host, port, certificate, asks=POSTGRES_ASKS, agrees=POSTGRES_AGREES, says=_with_bound_login)


def _with_bound_login(said: bytes) -> bytes:
    """Offer a login that is bound to TLS as well, as PostgreSQL does whenever it has a certificate."""
    if said[:1] != b"R" or not said[5:].startswith(_NAMES):
        return said
    names = _NAMES[:4] + _BOUND + said[9:]
    return b"R" + (len(names) + 4).to_bytes(4) + names


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, says: Callable[[bytes], bytes] = bytes
) -> None:
    writer.write(says(await reader.read(65536)))
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

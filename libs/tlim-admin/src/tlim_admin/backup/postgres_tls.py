"""TLS between PostgreSQL and its own programs: pg_dump and pg_restore of the wheel speak none."""

import asyncio
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tlim_runtime.background import Tasks

DEMANDS = ("require", "verify-ca", "verify-full")
"""The values of sslmode with which nothing is said without TLS."""

_ASKS, _AGREES = bytes((0, 0, 0, 8, 4, 210, 22, 47)), b"S"
"""SSLRequest and its answer (PostgreSQL's frontend/backend protocol, "SSL Session Encryption")."""

_SASL, _BOUND = b"\0\0\0\x0a", b"SCRAM-SHA-256-PLUS\0"
"""How AuthenticationSASL begins behind its length, and the name of a login that is bound to the TLS below it."""

_PORT = 5432  # PostgreSQL's own; here it is only part of the socket's name
_CONNECT_S = 10.0
_CHUNK = 64 * 1024


@asynccontextmanager
async def speaking_tls(url: str) -> AsyncIterator[str]:
    """Lend the URL by which a program reaches PostgreSQL at `url`.

    If sslmode demands TLS, it names a socket in a folder that only we can open. What passes there goes to the server
    over TLS. The options are those of asyncpg: sslmode, sslrootcert, sslcert, sslkey, and PGSSLMODE, PGSSLROOTCERT,
    PGSSLCERT, PGSSLKEY.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    mode = _option(options, "sslmode")
    if mode not in DEMANDS:
        yield url
        return
    context, host, port = _context(mode, options), parts.hostname or "localhost", parts.port or _PORT

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):  # the program says that its connection has ended
            try:
                inner, outer = await _open(host, port, context)
                await asyncio.gather(_pass_on(reader, outer), _answer(inner, writer))
            finally:
                writer.close()

    def entered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.start(enter(reader, writer), "a connection to PostgreSQL")

    connections = Tasks()
    with tempfile.TemporaryDirectory(prefix="tlim-") as folder:
        kept = {name: value for name, value in options.items() if not name.startswith("ssl")}
        local = urlencode({**kept, "host": folder, "port": _PORT, "sslmode": "disable"})
        async with await asyncio.start_unix_server(entered, Path(folder) / f".s.PGSQL.{_PORT}"):
            user, is_named, _ = parts.netloc.rpartition("@")
            try:
                yield urlunsplit((parts.scheme, user + is_named, parts.path, local, ""))
            finally:
                await connections.close()


def _option(options: Mapping[str, str], name: str) -> str | None:
    return options.get(name) or os.environ.get(f"PG{name.upper()}")


def _context(mode: str, options: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(_option(options, "sslrootcert") or Path.home() / ".postgresql" / "root.crt")
    if certificate := _option(options, "sslcert"):
        context.load_cert_chain(certificate, _option(options, "sslkey"))
    return context


async def _open(host: str, port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    agreed = await asyncio.to_thread(_agree, host, port)
    return await asyncio.open_connection(sock=agreed, ssl=context, server_hostname=host)


def _agree(host: str, port: int) -> socket.socket:
    """Return a connection on which the server waits for TLS. Raises OSError."""
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((host, port), timeout=_CONNECT_S))
        connection.sendall(_ASKS)
        if connection.recv(1) != _AGREES:  # one byte: what somebody put behind it in the clear must not count
            raise ConnectionError("PostgreSQL speaks no TLS")
        stack.pop_all()
    return connection


async def _first_words(server: asyncio.StreamReader) -> bytes:
    """Return what the server says first, and no login in it that is bound to TLS.

    The program would refuse the server for such an offer, because it knows nothing of our TLS.
    """
    kind = await server.read(1)
    if kind != b"R":
        return kind
    size = await server.readexactly(4)
    said = await server.readexactly(int.from_bytes(size) - len(size))
    if said.startswith(_SASL):
        said = said.replace(_BOUND, b"")
    return kind + (len(said) + len(size)).to_bytes(4) + said


async def _answer(server: asyncio.StreamReader, program: asyncio.StreamWriter) -> None:
    program.write(await _first_words(server))
    await _pass_on(server, program)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

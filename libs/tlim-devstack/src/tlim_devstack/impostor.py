"""A false XMPP server for a test, on loopback. It says whatever the test's script tells it to."""

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from scramp import ScramMechanism  # type: ignore[import-untyped] # it ships no annotations

from tlim_devstack.waiting import free_port

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"

_HEADER = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>"


class Impostor:
    """One connection of a client to the impostor. `heard` is everything that the client has said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, certificate: Path) -> None:
        self.reader, self.writer = reader, writer
        self.heard = ""
        self._certificate = certificate
        self._unread = ""

    async def hear(self, pattern: str) -> str:
        """Wait until the client's words match `pattern`, and return its first group; raises EOFError at their end."""
        while (found := re.search(pattern, self._unread, re.DOTALL)) is None:
            data = (await self.reader.read(65_536)).decode()
            if not data:
                raise EOFError(pattern)
            self.heard += data
            self._unread += data
        self._unread = self._unread[found.end() :]
        return found.group(1) if found.groups() else found.group()

    async def say(self, text: str) -> None:
        """Send any text."""
        self.writer.write(text.encode())
        await self.writer.drain()

    async def greet(self, *mechanisms: str, starttls: bool = False) -> None:
        """Open a stream and offer these mechanisms, and STARTTLS if asked to."""
        await self.hear(r"<stream:stream[^>]*>")
        offered = "".join(f"<mechanism>{name}</mechanism>" for name in mechanisms)
        await self.say(
            f"{_HEADER}<stream:features>{f'<starttls xmlns={TLS!r}/>' if starttls else ''}"
            f"<mechanisms xmlns='{SASL}'>{offered}</mechanisms></stream:features>"
        )

    async def encrypt(self, *, behind_proceed: str = "") -> None:
        """Answer STARTTLS. `behind_proceed` is a text that an attacker adds to the last unencrypted element."""
        await self.hear(r"<starttls[^>]*>")
        await self.say(f"<proceed xmlns='{TLS}'/>{behind_proceed}")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._certificate)
        await self.writer.start_tls(context)

    async def greet_encrypted(self, *mechanisms: str) -> None:
        """Open a stream, encrypt it, and offer mechanisms."""
        await self.greet(starttls=True)
        await self.encrypt()
        await self.greet(*mechanisms)

    async def sasl(self, kind: str, data: str = "") -> None:
        """Send a SASL element with its data in base64."""
        await self.say(f"<{kind} xmlns='{SASL}'>{base64.b64encode(data.encode()).decode()}</{kind}>")

    async def scram(self, user: str, password: str, mechanism: str = "SCRAM-SHA-256") -> str:
        """Go through SCRAM as an honest server does, but do not send the last message. Return it: the signature."""
        chosen = ScramMechanism(mechanism)
        known = chosen.make_auth_info(password)
        server = chosen.make_server({user: known}.__getitem__)
        server.set_client_first(_unpack(await self.hear(r"<auth[^>]*>([^<]*)</auth>")))
        await self.sasl("challenge", server.get_server_first())
        server.set_client_final(_unpack(await self.hear(r"<response[^>]*>([^<]*)</response>")))
        signature: str = server.get_server_final()
        return signature

    async def hold(self) -> None:
        """Keep the connection open in silence until the client ends it."""
        with contextlib.suppress(EOFError):
            await self.hear(r"(?!)")


Script = Callable[[Impostor], Awaitable[None]]


@asynccontextmanager
async def impostor(script: Script, certificate: Path) -> AsyncIterator[tuple[int, list[Impostor]]]:
    """Serve every connection with `script` while the block runs. Gives the port, and the list of connections."""
    made: list[Impostor] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Impostor(reader, writer, certificate)
        made.append(connection)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            await script(connection)
            await connection.hold()
        writer.transport.abort()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield port, made
    finally:
        server.close()
        for connection in made:
            connection.writer.transport.abort()


def _unpack(text: str) -> str:
    return base64.b64decode(text).decode()

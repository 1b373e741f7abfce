"""A light XMPP client for loads: STARTTLS, SASL PLAIN, and messages as bytes (RFC 6120, RFC 6121).

It does less than a chat program, so that it takes little of the processor that it shares with the measured servers.
"""

import asyncio
import base64
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self
from xml.parsers.expat import ParserCreate

from tlim_protocol.stanzas import Tag

STEP_S = 60.0
"""So long a step of a login may take on a busy machine."""

Stanza = list[tuple[str, dict[str, str]]]
"""The start tags of a stanza in document order, its own first: (name as it stands in the stream, attributes)."""


class Account(NamedTuple):
    """A person with an account at an XMPP server."""

    user_id: str
    password: str


@dataclass(frozen=True)
class Target:
    """An XMPP server. With `speaks_tlim` a message is an envelope, and the sender hears when it is stored."""

    host: str
    port: int
    domain: str
    ca_file: Path
    speaks_tlim: bool


class Stream(asyncio.Protocol):
    """A device that is logged in and present. `on_message` gets each `<message>`; it can be replaced at any time."""

    def __init__(self, target: Target, account: Account) -> None:
        self.target, self.account = target, account
        self.on_message: Callable[[Stanza], None] = lambda _: None
        self._transport: asyncio.Transport
        self._others = asyncio.Queue[Stanza]()
        self._new_parser()

    @classmethod
    async def log_in(cls, target: Target, account: Account) -> Self:
        """Connect, log in, and say that we are present. With tlim, what was missed has come when this returns."""
        stream = cls(target, account)
        loop = asyncio.get_running_loop()
        stream._transport, _ = await loop.create_connection(lambda: stream, target.host, target.port)
        caught_up = asyncio.Event()
        stream.on_message = lambda stanza: caught_up.set() if any(name == Tag.CAUGHT_UP for name, _ in stanza) else None
        async with asyncio.timeout(STEP_S):
            await stream._negotiate()
            if target.speaks_tlim:
                await caught_up.wait()
        return stream

    async def _negotiate(self) -> None:
        self._open()
        await self.answer("stream:features")
        self.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await self.answer("proceed")
        context = ssl.create_default_context(cafile=self.target.ca_file)
        loop, domain = asyncio.get_running_loop(), self.target.domain
        secured = await loop.start_tls(self._transport, self, context, server_hostname=domain)
        assert secured is not None
        self._transport = secured
        self._open()
        await self.answer("stream:features")
        secret = base64.b64encode(f"\0{self.account.user_id}\0{self.account.password}".encode()).decode()
        self.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>".encode())
        await self.answer("success")
        self._open()
        await self.answer("stream:features")
        self.send(b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
        await self.answer("iq")
        self.send(b"<presence/>")

    def send(self, data: bytes) -> None:
        """Write stanzas."""
        self._transport.write(data)

    async def answer(self, name: str) -> Stanza:
        """Return the next stanza of this name that is no message. Raises RuntimeError if the server refuses."""
        while True:
            stanza = await asyncio.wait_for(self._others.get(), STEP_S)
            kind, attributes = stanza[0]
            if kind in ("failure", "stream:error") or attributes.get("type") == "error":
                raise RuntimeError(f"{self.account.user_id}: the server answers {stanza}")
            if kind == name:
                return stanza

    def close(self) -> None:
        """End the stream."""
        self.send(b"</stream:stream>")
        self._transport.close()

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._parser.Parse(data, False)

    # --- parsing ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._new_parser()
        self.send(
            f"<?xml version='1.0'?><stream:stream to='{self.target.domain}' version='1.0' xmlns='jabber:client' "
            f"xmlns:stream='http://etherx.jabber.org/streams'>".encode()
        )

    def _new_parser(self) -> None:
        self._depth, self._stanza = 0, Stanza()
        self._parser = ParserCreate()
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > 1:
            self._stanza.append((name, attributes))

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth != 1:
            return
        stanza, self._stanza = self._stanza, []
        attributes = stanza[0][1]
        if name == "message":
            self.on_message(stanza)
        elif name == "iq" and attributes.get("type") == "get":  # a ping (XEP-0199): without an answer we are cut off
            self.send(f"<iq type='result' id='{attributes['id']}' to='{attributes['from']}'/>".encode())
        else:
            self._others.put_nowait(stanza)

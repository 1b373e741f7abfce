"""A device that keeps what comes to it in order, behind a network of its own that can fall silent."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from slixmpp.xmlstream.stanzabase import StanzaBase
from tlim_client.connection import ServerAddress
from tlim_client.inbox import Bounced, Carbon, Delivered, Received, Refused, Stored
from tlim_client.login import LoginStream
from tlim_client.xmpp import XmppClient
from tlim_protocol.stanzas import Tag

from tests.e2e.clients.network import Network


@dataclass
class Heard:
    """What came to one device of a person, in order: messages, copies, and the ends of catch-ups."""

    user_id: str
    label: str
    had: frozenset[str]  # what the person had when the device logged in
    messages: list[Delivered] = field(default_factory=list)
    copies: list[Delivered] = field(default_factory=list)  # carbons of what another device of the person sent
    caught_up: list[int] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)


class _Client(XmppClient):
    """Writes down what comes. Only answers go to the inbox. Without `resumes` there is no XEP-0198."""

    def __init__(self, server: ServerAddress, user: str, password: str, heard: Heard, *, resumes: bool) -> None:
        super().__init__(server, user, password)
        self._heard = heard
        self._resumes = resumes
        put = self.inbox.put

        def keep(event: Received) -> None:
            match event:
                case Stored() | Refused() | Bounced():
                    put(event)
                case Delivered():
                    heard.messages.append(event)
                case Carbon(sent=is_sent, message=Delivered() as message):
                    (heard.copies if is_sent else heard.messages).append(message)

        self.inbox.put = keep  # type: ignore[method-assign]

    def _make_stream(self) -> LoginStream:
        stream = super()._make_stream()
        if not self._resumes:
            management = stream.plugin["xep_0198"]
            for order in (management.order, management.resume_order):
                stream.unregister_feature("sm", order)
        return stream

    def _on_message(self, message: StanzaBase) -> None:
        mark = message.xml.find(Tag.CAUGHT_UP.qualified)
        if mark is not None and message.xml.get("from") == self.server.domain:
            self._heard.caught_up.append(int(mark.get("seq", "0")))
            self._heard.came.set()
        super()._on_message(message)


class Device:
    """One device of a person. After `vanish` or `leave` it is of no more use."""

    def __init__(self, server: ServerAddress, user: str, password: str, heard: Heard, *, resumes: bool) -> None:
        self.heard, self.resumes = heard, resumes
        self._network = Network(server.host, server.port)
        self._server, self._user, self._password = server, user, password
        self._door: asyncio.Server | None = None
        self.client: _Client | None = None

    async def come(self) -> None:
        """Log in. Raises ClientError."""
        self._door = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._door.sockets[0].getsockname()[1]
        at = self._server
        server = ServerAddress(at.host, port, at.domain, at.ca_file, at.component)
        self.client = _Client(server, self._user, self._password, self.heard, resumes=self.resumes)
        await self.client.connect()

    async def leave(self) -> None:
        """Log out in order."""
        if self.client is not None:
            await self.client.close()
        await self._shut()

    async def vanish(self) -> None:
        """Lose the network and never come back. The server's side stays open, and nobody tells it."""
        self._network.fall_silent()
        if self.client is not None:
            self.client.break_connection(until_come_back=True)
            await self.client.close()
        if self._door is not None:
            self._door.close()

    async def lose_network(self, seconds: float) -> None:
        """Lose the network without a word, and come back some time later: the stream is resumed if possible."""
        assert self.client is not None
        self._network.fall_silent()
        await asyncio.sleep(seconds / 2)  # what the server writes now is lost
        self.client.break_connection(until_come_back=True)
        await asyncio.sleep(seconds / 2)
        self.client.come_back()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._network.carry(reader, writer)
        except OSError:  # the server is away
            writer.close()

    async def _shut(self) -> None:
        if self._door is not None:
            self._door.close()
        with suppress(OSError):
            await self._network.close()

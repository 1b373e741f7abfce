"""A device that keeps what comes to it in order, behind a network of its own that can fall silent."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from tlim_client.connection import ServerAddress
from tlim_client.inbox import Bounced, Carbon, CaughtUp, Delivered, Received, Refused, Stored
from tlim_client.login import LoginStream
from tlim_client.xmpp import XmppClient
from tlim_protocol.envelope import Envelope

from tests.e2e.clients.network import Network
from tests.torture.book import Got, Heard, Kind
from tests.torture.items import item_of

Clock = Callable[[], float]


def clock() -> Clock:
    """Return a clock that counts seconds from now."""
    begun = time.monotonic()
    return lambda: time.monotonic() - begun


class _Client(XmppClient):
    """Writes down what comes. Only answers go to the inbox. Without `resumes` there is no XEP-0198."""

    def __init__(
        self,
        server: ServerAddress,
        user: str,
        password: str,
        put: Callable[[Received], bool],
        down: Callable[[], None],
        *,
        resumes: bool,
    ) -> None:
        super().__init__(server, user, password)
        self._resumes, self._down = resumes, down
        keep = self.inbox.put

        def sort(event: Received) -> None:
            if not put(event):
                keep(event)

        self.inbox.put = sort  # type: ignore[method-assign]

    def _make_stream(self) -> LoginStream:
        stream = super()._make_stream()
        if not self._resumes:
            management = stream.plugin["xep_0198"]
            for order in (management.order, management.resume_order):
                stream.unregister_feature("sm", order)
        return stream

    def _on_down(self, reason: str, was_up: bool) -> None:
        self._down()
        super()._on_down(reason, was_up)


class Device:
    """One device of one person. After `vanish` or `leave` it is of no more use."""

    def __init__(
        self, server: ServerAddress, user: str, password: str, heard: Heard, now: Clock, *, resumes: bool
    ) -> None:
        self.heard, self.resumes, self.now = heard, resumes, now
        self.chats: list[Envelope] = []  # what it can report as received or read, the newest last
        self.caught_up = asyncio.Event()
        self.came = asyncio.Event()  # set at each message
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
        self.client = _Client(server, self._user, self._password, self._put, self._broke, resumes=self.resumes)
        await self.client.connect()

    async def leave(self) -> None:
        """Log out in order."""
        self._broke()
        if self.client is not None:
            await self.client.close()
        await self._shut()

    async def vanish(self) -> None:
        """Lose the network and never come back. The server's side stays open, and nobody tells it."""
        self._broke()
        self._network.fall_silent()
        if self.client is not None:
            self.client.break_connection(until_come_back=True)
            await self.client.close()
        if self._door is not None:
            self._door.close()

    async def lose_network(self, seconds: float, *, port: int) -> None:
        """Lose the network without a word, and come back some time later, at that port of the servers.

        The stream is resumed if possible.
        """
        assert self.client is not None
        self._broke()
        self._network.fall_silent()
        await asyncio.sleep(seconds / 2)  # what the server writes now is lost
        self.client.break_connection(until_come_back=True)
        await asyncio.sleep(seconds / 2)
        self._network.move(self._server.host, port)
        self.client.come_back()

    def _broke(self) -> None:
        self.heard.broke.append(self.now())

    def _put(self, event: Received) -> bool:
        """Write an event down. Returns False for an answer."""
        match event:
            case Stored() | Refused() | Bounced():
                return False
            case Delivered():
                self._write(event, self.heard.messages)
            case Carbon(sent=is_sent, message=Delivered() as message):
                self._write(message, self.heard.copies if is_sent else self.heard.messages)
            case CaughtUp(seq=seq):
                self.heard.marks.append((self.now(), seq))
                self.caught_up.set()
        return True

    def _write(self, event: Delivered, page: list[Got]) -> None:
        item = self.heard.kept(item_of(event.envelope, event.seq))
        page.append(Got(item, self.now(), event.delayed))
        if page is self.heard.messages and item.kind is Kind.TEXT and item.text:
            self.chats.append(event.envelope)
        self.came.set()

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

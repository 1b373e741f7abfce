"""The XMPP connection of one device: login, events into the inbox, made again when it breaks."""

import asyncio
import logging
import ssl
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp.xmlstream.stanzabase import StanzaBase

from tlim_client.failures import ClientError, LoginRefusedError, NotReachableError
from tlim_client.inbox import Inbox, Received
from tlim_client.stanzas import CLIENT_NS, read_stanza

logging.getLogger("slixmpp").addHandler(logging.NullHandler())  # its errors reach the caller as exceptions

FIRST_DELAY, LONGEST_DELAY = 0.1, 10.0
"""Seconds before attempts to connect again, doubling: a restarted server is met soon, a dead one is not hammered."""

ATTEMPT_SECONDS = 20.0
"""A server that takes the connection and lets nobody in, as while it shuts down, is left after this time."""

IDLE_SECONDS, PING_SECONDS = 60.0, 20.0
"""A network that went away without a word is noticed by a ping (XEP-0199) that is not answered."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the XMPP server is; without `ca_file` its certificate is checked against the system's authorities."""

    host: str = "localhost"
    port: int = 5222
    domain: str = "im.itonglian.com"
    ca_file: Path | None = None

    def tls(self) -> ssl.SSLContext:
        """Return the context for STARTTLS; raises ClientError when the CA file cannot be read."""
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ClientError(f"the CA file {self.ca_file} cannot be used: {error}") from error


class Connection:
    """One device of one user: an authenticated stream with carbons (XEP-0280) and stream management (XEP-0198).

    A connection that breaks is made again, and the stream resumed, until `close`; what was received lands in `inbox`.
    """

    def __init__(self, server: ServerAddress, user: str, password: str, *, resource: str = "") -> None:
        self.server = server
        self.user = user
        self.inbox = Inbox()
        self._password = password
        self._resource = resource
        self._stream: ClientXMPP | None = None
        self._ready: asyncio.Future[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._is_wanted = asyncio.Event()  # not while the network is away

    @property
    def jid(self) -> str:
        """The full JID that the server bound this device to."""
        return str(self._connected().boundjid.full)

    def address_of(self, user: str) -> str:
        """Return the bare JID of a user of the same domain; what already is a JID stays one."""
        return user if "@" in user else f"{user}@{self.server.domain}"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self, within: float = 20) -> None:
        """Log in and announce this device; raises LoginRefusedError or NotReachableError."""
        self._up.clear()
        self._down.clear()
        self._is_wanted.set()
        self._ready = asyncio.get_running_loop().create_future()
        self._stream = self._make_stream()
        self._stream.connect(self.server.host, self.server.port)
        try:
            await asyncio.wait_for(self._ready, within)
            self._keeper = asyncio.create_task(self._keep_connected(self._stream))
        except TimeoutError:
            await self.close()
            raise NotReachableError(f"the XMPP server did not let {self.user} in within {within:g} s") from None
        except ClientError:
            await self.close()
            raise

    async def close(self) -> None:
        """End the stream properly, so that the server knows at once that this device is gone."""
        stream = self._stream
        if stream is None:
            return
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if stream.is_connected():
            await stream.disconnect(wait=2.0)
        stream.cancel_connection_attempt()
        sender = stream._run_out_filters  # slixmpp never ends its own sending task
        if sender is not None:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def break_connection(self, *, until_come_back: bool = False) -> None:
        """Drop the connection without a word, as a network does; it is made again, and the stream resumed.

        At once, or with `until_come_back` when `come_back` is called: the server keeps what arrives meanwhile.
        """
        if until_come_back:
            self._is_wanted.clear()
        self._connected().abort()

    def come_back(self) -> None:
        """Connect again after `break_connection(until_come_back=True)`."""
        self._is_wanted.set()

    def _connected(self) -> ClientXMPP:
        if self._stream is None:
            raise NotReachableError("not connected")
        return self._stream

    def _make_stream(self) -> ClientXMPP:
        jid = JID(f"{self.address_of(self.user)}{'/' if self._resource else ''}{self._resource}")
        stream = ClientXMPP(jid, self._password, ssl_context=self.server.tls())
        stream.enable_direct_tls = False  # the port speaks STARTTLS; the other way only costs an attempt
        for plugin in ("xep_0030", "xep_0198", "xep_0199", "xep_0280"):
            stream.register_plugin(plugin)
        match = MatchXPath(f"{{{CLIENT_NS}}}message")
        stream.register_handler(Callback("tlim inbox", match, self._on_message))
        for event, handler in {
            "session_start": self._on_session,
            "session_resumed": self._on_resumed,
            "failed_all_auth": self._on_refused,
            "connection_failed": self._on_unreachable,
            "ssl_invalid_chain": self._on_bad_certificate,
            "disconnected": self._on_disconnected,
        }.items():
            stream.add_event_handler(event, handler)
        return stream

    async def _keep_connected(self, stream: ClientXMPP) -> None:
        """Connect again whenever the connection is lost, one attempt after the other: slixmpp cannot hold two."""
        while True:
            await self._stays_up(stream)
            for delay in _delays():
                await self._is_wanted.wait()
                await asyncio.sleep(delay)
                self._down.clear()
                stream.connect(self.server.host, self.server.port)
                if await self._comes_up():
                    break
                stream.cancel_connection_attempt()
                stream.abort()

    async def _stays_up(self, stream: ClientXMPP) -> None:
        while not self._down.is_set():
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._down.wait()
            except TimeoutError:
                self._do(_ping(stream))

    async def _comes_up(self) -> bool:
        outcomes = [asyncio.create_task(event.wait()) for event in (self._up, self._down)]
        try:
            await asyncio.wait(outcomes, timeout=ATTEMPT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for outcome in outcomes:
                outcome.cancel()
        return self._up.is_set()

    def _on_message(self, message: StanzaBase) -> None:
        event: Received | None = read_stanza(message.xml, self.address_of(self.user), self.server.domain)
        if event is not None:
            self.inbox.put(event)

    def _on_session(self, _: object) -> None:
        self._do(self._announce())

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _announce(self) -> None:
        stream = self._connected()
        if "starttls" not in stream.features:
            self._fail(NotReachableError("the XMPP server offers no TLS"))
            return
        try:
            await stream.plugin["xep_0280"].enable()
        except (IqError, IqTimeout):
            logging.getLogger(__name__).info("the server has no carbons")  # works without: other devices see less
        stream.send_presence()
        self._up.set()
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _on_resumed(self, _: object) -> None:
        self._up.set()

    def _on_refused(self, _: object) -> None:
        self._fail(LoginRefusedError(f"the server does not accept {self.user} with this password"))

    def _on_unreachable(self, reason: object) -> None:
        where = f"{self.server.host}:{self.server.port}"
        self._fail(NotReachableError(f"no XMPP server answers at {where} ({reason})"))
        self._went_down()

    def _on_bad_certificate(self, reason: object) -> None:
        self._fail(NotReachableError(f"the XMPP server's certificate is not trusted ({reason}); see --ca-file"))

    def _on_disconnected(self, reason: object) -> None:
        self._fail(NotReachableError(f"the XMPP server ended the connection ({reason or 'no reason given'})"))
        self._went_down()

    def _went_down(self) -> None:
        self._up.clear()
        self._down.set()
        self._connected().cancel_connection_attempt()  # the next one is ours to time
        for task in self._background:
            task.cancel()

    def _fail(self, error: ClientError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)


async def _ping(stream: ClientXMPP) -> None:
    try:
        await stream.plugin["xep_0199"].ping(timeout=PING_SECONDS)
    except IqTimeout:
        stream.abort()


def _delays() -> Iterator[float]:
    delay = FIRST_DELAY
    while True:
        yield delay
        delay = min(delay * 2, LONGEST_DELAY)

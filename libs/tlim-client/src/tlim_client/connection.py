"""The XMPP connection of one device. It logs in, puts events into the inbox, and is made again when it breaks."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from slixmpp import JID
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp.xmlstream.stanzabase import StanzaBase
from tlim_xmpp.keeper import Patience, StreamKeeper

from tlim_client.failures import ClientError, LoginRefusedError, NotReachableError
from tlim_client.inbox import Inbox, Received
from tlim_client.login import LoginStream
from tlim_client.stanzas import CLIENT_NS, read_stanza

logging.getLogger("slixmpp").addHandler(logging.NullHandler())  # its errors reach the caller as exceptions

PATIENCE = Patience(longest_delay=10, attempt=20, idle=60)

PING_SECONDS = 20.0
"""How long a ping (XEP-0199) may stay without an answer. After that the network counts as gone."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the XMPP server is. Without `ca_file` its certificate is checked against the system's authorities.

    `component` is set only for a server without our module: messages must then be addressed to this name, the bridge's.
    """

    host: str = "localhost"
    port: int = 5222
    domain: str = "im.itonglian.com"
    ca_file: Path | None = None
    component: str | None = None

    @property
    def bridge(self) -> str:
        """The bridge's own address, which also answers requests."""
        return self.component or f"bridge.{self.domain}"

    def entrance(self, receiver: str | None) -> str:
        """Return the JID for messages to this user, or to a group (docs/wire-protocol.md, "Addresses and identity")."""
        entrance = self.component or self.domain
        return entrance if receiver is None else f"{receiver}@{entrance}"

    def tls(self) -> ssl.SSLContext:
        """Return the context for STARTTLS; raises ClientError when the CA file cannot be read."""
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ClientError(f"the CA file {self.ca_file} cannot be used: {error}") from error


class Connection:
    """One device of one user: an authenticated stream with carbons (XEP-0280) and stream management (XEP-0198).

    Until `close`, a broken connection is made again and the stream is resumed. Received events go to `inbox`.
    """

    def __init__(self, server: ServerAddress, user: str, password: str, *, resource: str = "") -> None:
        self.server = server
        self.user = user
        self.inbox = Inbox()
        self._password = password
        self._resource = resource
        self._stream: LoginStream | None = None
        self._failure: ClientError | None = None
        self._broken: ClientError | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._is_announced = False
        self._keeper: StreamKeeper | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def jid(self) -> str:
        """The full JID that the server bound this device to."""
        return str(self._connected().boundjid.full)

    def address_of(self, user: str) -> str:
        """Return the bare JID of a user of the same domain. A JID is returned as it is."""
        return user if "@" in user else f"{user}@{self.server.domain}"

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Log in and announce this device; raises LoginRefusedError or NotReachableError."""
        self._failure = None
        self._stream = stream = self._make_stream()
        self._keeper = StreamKeeper(
            stream, self.server.host, self.server.port, PATIENCE, ping=self._ping, on_down=self._on_down
        )
        try:
            is_up = await self._keeper.attempt()
        except BaseException:
            await self.close()
            raise
        if not is_up:
            await self.close()
            raise self._failure or NotReachableError(f"the XMPP server did not let {self.user} in")
        self._keeping = asyncio.create_task(self._keeper.run())
        self._keeping.add_done_callback(self._on_unkept)

    async def close(self) -> None:
        """End the stream properly, so that the server knows at once that this device is gone."""
        await _end(self._keeping)
        if self._stream is not None and self._stream.plugin["xep_0198"].enabled_in:
            # XEP-0198 section 4. Otherwise the server gives our next device what it thinks that we have not got.
            self._stream.plugin["xep_0198"].send_ack()  # type: ignore[no-untyped-call] # slixmpp has not annotated it
        if self._keeper is not None:
            await self._keeper.close(wait=2.0)
        await _end(self._announcing)

    def break_connection(self, *, until_come_back: bool = False) -> None:
        """Drop the connection without closing it, as a broken network does. Then connect again and resume the stream.

        With `until_come_back` the client connects again only when `come_back` is called. Meanwhile the server keeps
        what arrives.
        """
        if until_come_back:
            self._kept().is_wanted.clear()
        self._connected().abort()

    def come_back(self) -> None:
        """Connect again after `break_connection(until_come_back=True)`."""
        self._kept().is_wanted.set()

    def _connected(self) -> LoginStream:
        if self._broken is not None:
            raise self._broken
        if self._stream is None:
            raise NotReachableError("not connected")
        return self._stream

    def _kept(self) -> StreamKeeper:
        if self._keeper is None:
            raise NotReachableError("not connected")
        return self._keeper

    def _make_stream(self) -> LoginStream:
        jid = JID(f"{self.address_of(self.user)}{'/' if self._resource else ''}{self._resource}")
        stream = LoginStream(jid, self._password, self.server.tls())
        for plugin in ("xep_0030", "xep_0198", "xep_0199", "xep_0280"):
            stream.register_plugin(plugin)
        match = MatchXPath(f"{{{CLIENT_NS}}}message")
        stream.register_handler(Callback("tlim inbox", match, self._on_message))
        for event, handler in {
            "session_start": self._on_session,
            "session_resumed": self._on_resumed,
            "failed_all_auth": self._on_refused,
            "ssl_invalid_chain": self._on_bad_certificate,
            "no_tls": self._on_no_tls,
            "unproven_success": self._on_unproven,
        }.items():
            stream.add_event_handler(event, handler)
        return stream

    async def _ping(self) -> None:
        stream = self._connected()
        try:
            await stream.plugin["xep_0199"].ping(timeout=PING_SECONDS)
        except IqTimeout:
            stream.abort()

    def _on_message(self, message: StanzaBase) -> None:
        event: Received | None = read_stanza(message.xml, self.address_of(self.user), self.server.domain)
        if event is not None:
            self.inbox.put(event)

    def _on_session(self, _: object) -> None:
        self._is_announced = False
        if self._kept().is_down:
            return
        self._announcing = asyncio.create_task(self._announce())
        self._announcing.add_done_callback(self._on_announced)

    def _on_announced(self, task: asyncio.Task[None]) -> None:
        """Give the connection up when it could not be announced. The keeper makes another one."""
        if (reason := _failure_of(task)) is not None:
            self._give_up(ClientError(f"this device could not be announced: {reason}"))

    def _on_unkept(self, task: asyncio.Task[None]) -> None:
        """Tell every caller, now and later, when the keeper has failed: a lost connection is not made again."""
        if (reason := _failure_of(task)) is not None:
            self._broken = ClientError(f"the XMPP connection is not kept any more: {reason}")
            self.inbox.end(self._broken)

    async def _announce(self) -> None:
        stream = self._connected()
        try:
            await stream.plugin["xep_0280"].enable()
        except (IqError, IqTimeout):
            logging.getLogger(__name__).info("the server has no carbons")  # tlim still works: other devices see less
        stream.send_presence()
        self._is_announced = True
        self._kept().went_up()

    def _on_resumed(self, _: object) -> None:
        if self._is_announced:
            self._kept().went_up()
        else:  # the connection was lost between the login and the presence
            self._on_session(None)

    def _on_refused(self, _: object) -> None:
        self._give_up(LoginRefusedError(f"the server does not accept {self.user} with this password"))

    def _on_bad_certificate(self, reason: object) -> None:
        self._give_up(NotReachableError(f"the XMPP server's certificate is not trusted ({reason}); see --ca-file"))

    def _on_no_tls(self, _: object) -> None:
        self._give_up(NotReachableError("the XMPP server offers no TLS: it was not told the password"))

    def _on_unproven(self, _: object) -> None:
        self._give_up(NotReachableError("the XMPP server let us in without proof that it knows the password"))

    def _give_up(self, error: ClientError) -> None:
        self._failure = self._failure or error
        self._connected().abort()

    def _on_down(self, reason: str, was_up: bool) -> None:
        del was_up
        where = f"{self.server.host}:{self.server.port}"
        self._failure = self._failure or NotReachableError(f"no XMPP connection to {where} ({reason})")
        if self._announcing is not None:
            self._announcing.cancel()


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _failure_of(task: asyncio.Task[None]) -> str | None:
    """Return why a task has failed; None if it ended well or was cancelled."""
    error = None if task.cancelled() else task.exception()
    return None if error is None else f"{type(error).__name__}: {error}"

"""XMPP over WebSocket (RFC 7395), as browsers use it: just enough to log in, send and receive."""

import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self
from xml.etree import ElementTree as ET

import aiohttp
from slixmpp.xmlstream import tostring
from tlim_client.inbox import CaughtUp, Received
from tlim_client.stanzas import CLIENT_NS, message_stanza, read_stanza
from tlim_protocol.envelope import Envelope, write_envelope

from tests.e2e.clients.people import Person, server_of

_FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_BIND = "urn:ietf:params:xml:ns:xmpp-bind"
_FEATURES = "{http://etherx.jabber.org/streams}features"
_STREAM_ERROR = "{http://etherx.jabber.org/streams}error"


async def _nothing() -> None:
    pass


class WebDevice:
    """One logged-in connection: each frame is one stanza."""

    def __init__(self, person: Person, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._person = person
        self._socket = socket

    @classmethod
    @asynccontextmanager
    async def of(cls, person: Person, *, meanwhile: Callable[[], Awaitable[object]] = _nothing) -> AsyncIterator[Self]:
        """Log in, and close the stream in the end. `meanwhile` runs when the password was checked, before a session."""
        at = person.stack.addresses
        timeout = aiohttp.ClientTimeout(total=30)
        trust = ssl.create_default_context(cafile=at.ca_file)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.ws_connect(at.websocket, protocols=["xmpp"], ssl=trust, server_hostname=at.domain) as socket,
        ):
            assert socket.protocol == "xmpp"
            device = cls(person, socket)
            await device._log_in(meanwhile)
            yield device
            if not socket.closed:
                await socket.send_str(f"<close xmlns='{_FRAMING}'/>")

    async def send(self, envelope: Envelope, stanza_id: str) -> None:
        """Send an envelope to the address that the server expects."""
        to = server_of(self._person.stack).entrance(envelope.msg_to)
        stanza = message_stanza(to, write_envelope(envelope), stanza_id, location="web")
        await self._socket.send_str(tostring(stanza))  # not ElementTree's: ejabberd ignores stanzas with prefixes

    async def receive(self) -> Received:
        """Return the next message that means something to tlim. The end of what was missed is passed over."""
        domain = self._person.stack.addresses.domain
        while True:
            stanza = await self._until(lambda element: element.tag == f"{{{CLIENT_NS}}}message")
            event = read_stanza(stanza, self._person.jid, domain)
            if event is not None and not isinstance(event, CaughtUp):
                return event

    async def ended(self) -> str:
        """Return the condition with which the server ends the stream (RFC 6120 section 4.9.3), when it is closed."""
        error = await self._until(lambda element: element.tag == _STREAM_ERROR)
        while not self._socket.closed:
            await self._socket.receive(timeout=20)
        return error[0].tag.partition("}")[2]

    async def _log_in(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        await self._open()
        secret = base64.b64encode(f"\0{self._person.user_id}\0{self._person.password}".encode()).decode()
        await self._socket.send_str(f"<auth xmlns='{_SASL}' mechanism='PLAIN'>{secret}</auth>")
        await self._until(lambda element: element.tag == f"{{{_SASL}}}success")
        await meanwhile()
        await self._open()
        await self._socket.send_str(
            f"<iq xmlns='{CLIENT_NS}' type='set' id='bind'><bind xmlns='{_BIND}'><resource>web</resource></bind></iq>"
        )
        await self._until(lambda element: element.get("id") == "bind" and element.get("type") == "result")
        await self._socket.send_str(f"<presence xmlns='{CLIENT_NS}'/>")

    async def _open(self) -> None:
        domain = self._person.stack.addresses.domain
        await self._socket.send_str(f"<open xmlns='{_FRAMING}' to='{domain}' version='1.0'/>")
        await self._until(lambda element: element.tag == _FEATURES)

    async def _until(self, is_wanted: Callable[[ET.Element], bool]) -> ET.Element:
        while True:
            element = ET.XML(await self._socket.receive_str(timeout=20))
            if is_wanted(element):
                return element

"""A real login at the XMPP server, up to SASL's verdict (RFC 6120 section 6). No resource is bound, so nobody sees it.

slixmpp's client is not used here, for four reasons. It accepts `<success/>` at SCRAM's first step, without the server's
signature. It runs as many rounds as the server names, in Python. It reads without a bound. After a refusal it tries
every other mechanism.
"""

import asyncio
import base64
import binascii
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from xml.etree import ElementTree as ET

from scramp import ScramClient, ScramException  # type: ignore[import-untyped] # it ships no annotations
from tlim_runtime.outages import Unavailable

from xmpp_bridge.certificates import end_of, unverified

_STREAMS = "http://etherx.jabber.org/streams"
_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_TLS = "urn:ietf:params:xml:ns:xmpp-tls"
_MAX_BYTES = 64 * 1024
"""A negotiation is a few kilobytes. A server that sends more than this is no XMPP server."""

_SCRAM = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")
_REFUSALS = frozenset({"not-authorized", "account-disabled", "credentials-expired", "invalid-authzid"})


class WrongPasswordError(Exception):
    """The server refuses these credentials; it does not say whether there is such a user."""


class LoginUnavailable(Unavailable):
    """The XMPP server could not be asked, or its answer proves nothing."""


class SaslLogin:
    """Checks passwords at one XMPP server, a bounded number at a time.

    A server on another machine is told nothing before TLS with a certificate for the domain. This holds for every
    mechanism: SCRAM's messages also allow guessing at the password. Only `<success/>` is success. With SCRAM it must
    also hold the server's signature (RFC 5802 section 3).
    """

    def __init__(
        self, host: str, port: int, domain: str, *, ca_file: Path | None, at_once: int, timeout: timedelta
    ) -> None:
        self._host, self._port, self._domain = host, port, domain
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._slots = asyncio.Semaphore(at_once)
        self._timeout = timeout.total_seconds()

    async def check(self, user_id: str, password: str, begins: Callable[[], None]) -> None:
        """Return when the server accepts the password; raises WrongPasswordError, or LoginUnavailable.

        `begins` is called when there is a slot. It may raise TlimError, and then the server is not asked. The time-out
        covers waiting for a slot as well.
        """
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                begins()
                await self._login(user_id, password)
        except (OSError, TimeoutError, ET.ParseError, ScramException, binascii.Error, ValueError) as error:
            raise LoginUnavailable(f"login at the XMPP server: {error or type(error).__name__}") from error

    async def certificate_ends(self) -> float | None:
        """Return when the certificate ends that clients are shown (Unix time); None: the server offers no TLS.

        Raises LoginUnavailable.
        """
        try:
            async with asyncio.timeout(self._timeout):
                stream = _Stream(*await asyncio.open_connection(self._host, self._port), self._domain)
                try:
                    features = await stream.open()
                    if features.find(f"{{{_TLS}}}starttls") is None:
                        return None
                    await stream.start_tls(unverified())
                    return end_of(stream.certificate)
                finally:
                    stream.close()
        except (OSError, TimeoutError, ET.ParseError, ValueError) as error:
            raise LoginUnavailable(f"certificate of the XMPP server: {error or type(error).__name__}") from error

    async def _login(self, user_id: str, password: str) -> None:
        stream = _Stream(*await asyncio.open_connection(self._host, self._port), self._domain)
        try:
            features = await stream.open()
            if features.find(f"{{{_TLS}}}starttls") is not None:
                features = await stream.start_tls(self._tls)
            elif not _is_loopback(self._host):
                raise LoginUnavailable("the XMPP server offers no TLS, and is on another machine")
            offered = {mechanism.text for mechanism in features.iterfind(f"{{{_SASL}}}mechanisms/{{{_SASL}}}mechanism")}
            scram = [name for name in _SCRAM if name in offered]
            if scram:
                await _scram(stream, scram, user_id, password)
            elif "PLAIN" in offered and stream.is_encrypted:
                await _plain(stream, user_id, password)
            else:
                raise LoginUnavailable(f"the XMPP server offers no usable mechanism: {sorted(map(str, offered))}")
        finally:
            stream.close()


async def _scram(stream: "_Stream", mechanisms: list[str], user_id: str, password: str) -> None:
    try:
        client = ScramClient(mechanisms, user_id, password)
    except ScramException as error:  # SASLprep forbids one of its characters, so no user can have this password
        raise WrongPasswordError from error
    challenge = await stream.authenticate(client.mechanism_name, client.get_client_first(), "challenge")
    # The server chooses the number of rounds. A large number must not block the event loop.
    await asyncio.to_thread(client.set_server_first, challenge)
    client.set_server_final(await stream.respond(client.get_client_final(), "success"))


async def _plain(stream: "_Stream", user_id: str, password: str) -> None:
    await stream.authenticate("PLAIN", f"\0{user_id}\0{password}", "success")


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


class _Stream:
    """One client stream, element by element."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, domain: str) -> None:
        self._reader, self._writer, self._domain = reader, writer, domain
        self._start_reading()
        self._bytes = 0
        self.is_encrypted = False

    async def open(self) -> ET.Element:
        """Begin a stream and return its features. Everything received before it is forgotten."""
        self._start_reading()
        features = await self._ask(
            f"<?xml version='1.0'?><stream:stream to='{self._domain}' version='1.0' xmlns='jabber:client' "
            f"xmlns:stream='{_STREAMS}'>"
        )
        if features.tag != f"{{{_STREAMS}}}features":
            raise LoginUnavailable(f"the XMPP server answers {features.tag}")
        return features

    async def start_tls(self, context: ssl.SSLContext) -> ET.Element:
        """Encrypt, checking the certificate for the domain (RFC 6120 section 5), and open the stream anew."""
        if (await self._ask(f"<starttls xmlns='{_TLS}'/>")).tag != f"{{{_TLS}}}proceed":
            raise LoginUnavailable("the XMPP server refuses STARTTLS that it offers")
        await self._writer.start_tls(context, server_hostname=self._domain)
        self.is_encrypted = True
        return await self.open()

    async def authenticate(self, mechanism: str, initial: str, expected: str) -> str:
        """Begin an exchange and return the data of the answer; raises LoginUnavailable unless it is as expected."""
        auth = f"<auth xmlns='{_SASL}' mechanism='{mechanism}'>{_pack(initial)}</auth>"
        return _verdict(await self._ask(auth), expected)

    async def respond(self, response: str, expected: str) -> str:
        """Answer a challenge and return the data of the server's reply, like `authenticate`."""
        return _verdict(await self._ask(f"<response xmlns='{_SASL}'>{_pack(response)}</response>"), expected)

    @property
    def certificate(self) -> bytes:
        """The server's certificate (DER), after `start_tls`."""
        tls: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True) or b""

    def close(self) -> None:
        """End the stream, without waiting for the server to close its side."""
        self._writer.write(b"</stream:stream>")
        self._writer.transport.abort()

    def _start_reading(self) -> None:
        self._elements = _Elements()
        self._parser = ET.XMLParser(target=self._elements)  # noqa: S314 - no DTD, and _MAX_BYTES of anything else

    async def _ask(self, text: str) -> ET.Element:
        self._writer.write(text.encode())
        await self._writer.drain()
        while not self._elements.complete:
            data = await self._reader.read(_MAX_BYTES)
            self._bytes += len(data)
            if not data or self._bytes > _MAX_BYTES:
                raise LoginUnavailable("the XMPP server closed the stream, or sends too much")
            self._parser.feed(data)
        return self._elements.complete.popleft()


class _Elements(ET.TreeBuilder):
    """Collects the complete children of a stream's root, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.complete: deque[ET.Element] = deque()
        self._depth = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        self._depth += 1
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self._depth -= 1
        element = super().end(tag)
        if self._depth == 1:
            self.complete.append(element)
        return element

    def doctype(self, *_: object) -> None:
        """Refuse a DTD (RFC 6120 section 11.1). A few entities in it could turn kilobytes into gigabytes."""
        raise ET.ParseError("a DTD in the stream")


def _verdict(answer: ET.Element, expected: str) -> str:
    if answer.tag == f"{{{_SASL}}}{expected}":
        return base64.b64decode(answer.text or "").decode()
    conditions = {child.tag.partition("}")[2] for child in answer}
    if answer.tag == f"{{{_SASL}}}failure" and conditions & _REFUSALS:
        raise WrongPasswordError
    raise LoginUnavailable(f"the XMPP server answers {answer.tag} {sorted(conditions)}")


def _pack(text: str) -> str:
    return base64.b64encode(text.encode()).decode() or "="

"""Checks of certificates, as clients see them: on the XMPP port after STARTTLS (RFC 6120, section 5), and at HTTPS."""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tlim_runtime.outgoing import trusting

from tlim_admin.doctor.findings import Finding, doubtful, fine, wrong

SOON_DAYS = 21
"""Authorities such as Let's Encrypt renew 30 days before the end. After nine days without success look into it."""

_TIMEOUT_S = 10.0
_OPENING = (
    "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>"
)
_STARTTLS = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"


async def xmpp(host: str, port: int, domain: str, authority: Path | None) -> list[Finding]:
    """Look at the certificate that a client of this domain gets."""
    context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    look = partial(_look, "XMPP certificate", (host, port), domain, context, "TLIM_XMPP_CA_FILE", starttls=True)
    return [await asyncio.to_thread(look)]


async def https(url: str, authority: Path | None) -> list[Finding]:
    """Look at the certificate of the gateway: it is the self-made one of XMPP, or one of an authority of the system."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    at = (host, parts.port or 443)
    context = trusting(authority)
    trusted = "the system, SSL_CERT_FILE or TLIM_XMPP_CA_FILE"
    look = partial(_look, "gateway certificate", at, host, context, trusted, starttls=False)
    return [await asyncio.to_thread(look)]


def _look(
    name: str, at: tuple[str, int], domain: str, context: ssl.SSLContext, trusted: str, *, starttls: bool
) -> Finding:
    with socket.create_connection(at, timeout=_TIMEOUT_S) as plain:
        if starttls:
            _start_tls(plain, domain)
        try:
            with context.wrap_socket(plain, server_hostname=domain) as secure:
                return judge(name, secure.getpeercert() or {}, time.time(), f"{secure.version()}")
        except ssl.SSLCertVerificationError as error:
            advice = f"clients do not trust it: it must name {domain}, be in date, and come from {trusted}"
            return wrong(name, error.verify_message, advice)


def judge(name: str, certificate: Mapping[str, object], now: float, version: str) -> Finding:
    """Judge a certificate, as ssl gives it, by its last day."""
    until = str(certificate["notAfter"])
    days = (ssl.cert_time_to_seconds(until) - now) / 86_400
    if days < SOON_DAYS:
        return doubtful(name, f"good for {days:.0f} days", "renew it: renewed files are served without a restart")
    return fine(name, f"good for {days:.0f} days, {version}")


def _start_tls(plain: socket.socket, domain: str) -> None:
    plain.sendall(_OPENING.format(domain=domain).encode())
    _read_until(plain, b"</stream:features>")
    plain.sendall(_STARTTLS)
    _read_until(plain, b"<proceed")


def _read_until(plain: socket.socket, end: bytes) -> None:
    said = b""
    while end not in said:
        chunk = plain.recv(4096)
        if not chunk:
            raise OSError(f"the XMPP server ended the stream: {said[-200:].decode(errors='replace')}")
        said += chunk

"""A stranger knocks on every TCP port of a running stack, in every language, and hears only what is public."""

import contextlib
import re
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain, product
from typing import Any

import psutil
import pytest
from tlim_devstack.services import SERVICES, package_of
from tlim_devstack.stack import Stack

pytestmark = pytest.mark.parametrize("stack", ["ejabberd", "prosody"], indirect=True, scope="module")

PATHS = (
    *(
        "/",
        "/status",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/debug/pprof/",
        "/config/",
        "/admin",
    ),
    *("/varz", "/connz?subs=1", "/jsz?streams=1", "/subsz", "/monitor/varz", "/monitor/healthz"),  # NATS
    *("/ui/index.html", "/cluster/status", "/dir/assign", "/dir/status", "/stats/disk", "/buckets/", "/1,01637037d6"),
    *("/tlim-files/", "/tlim-files/files/x", "/api/status", "/api/register", "/ws", "/http-bind", "/console"),
    *("/v1/sessions", "/v1/files/x", "/v1/audit", "/v1/users", "/v1/sync", "/.well-known/jwks.json"),
    *("/operations", "/v1/operations", "/v1/operations/dead-letters"),
)
HEADER = (
    "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='{}' "
    "xmlns:stream='http://etherx.jabber.org/streams'>"
)
STARTUP = b"\0\3\0\0user\0postgres\0database\0postgres\0\0"  # protocol 3.0
GREETINGS = {
    "silence": b"",
    "XMPP client": HEADER.format("im.itonglian.com", "jabber:client").encode(),
    "XMPP component": HEADER.format("bridge.im.itonglian.com", "jabber:component:accept").encode(),
    "NATS": b'CONNECT {"verbose":true}\r\nSUB > 1\r\nPING\r\n',
    "PostgreSQL": (len(STARTUP) + 4).to_bytes(4) + STARTUP,
    "gRPC": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
    "Erlang port mapper": b"\0\1n",
    **{path: f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode() for path in PATHS},
}

TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE
PATIENCE_S = 2  # how long a busy server may think
ENOUGH = 65_536

NOTHING = re.compile(rb"")
ALERT = re.compile(rb"\x15\x03.{5}", re.DOTALL)  # TLS
REFUSAL = re.compile(rb"HTTP/1\.[01] (400|401|403|404|405|426) .*", re.DOTALL)
SETTINGS = re.compile(rb"\0\0.\x04\0\0\0\0\0.*", re.DOTALL)  # of HTTP/2; no request was made
EVERYWHERE = (NOTHING, ALERT, REFUSAL, SETTINGS)

FEATURES = re.compile(rb"(<\?xml [^>]*>)?\s*<stream:stream [^>]*>(<stream:features>.*|<stream:error>.*)?", re.DOTALL)
OPEN = {
    "xmpp": FEATURES,
    "component": FEATURES,
    "nats": re.compile(rb"INFO \{[^\n]*\}\s*(-ERR '[A-Za-z ]+'\s*)*"),
    "postgres": re.compile(rb"R\0\0\0.\0\0\0\x0aSCRAM-SHA-256\0\0|E.*SFATAL.*", re.DOTALL),
}
"""What a port says to a stranger that speaks its language, beyond the refusals of `EVERYWHERE`."""

SERVICE_PAGES = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
JWKS = "/.well-known/jwks.json"
PAGES = {
    "gateway": {JWKS, "/healthz", "/openapi.json", "/operations"},
    "s3": {"/status", "/healthz", "/readyz"},
    "websocket": {"/", "/ws"},  # Prosody's page for browsers says what this port is for
    **{package_of(service): SERVICE_PAGES for service in SERVICES},
    "xmpp_bridge": SERVICE_PAGES | {JWKS},
    "message_store": SERVICE_PAGES | {"/operations"},
}
"""The pages that need no credentials. `/openapi.json` and `/operations` hold no data and are the same everywhere."""


def knock(address: tuple[str, int], greeting: bytes, *, tls: bool) -> bytes:
    """Connect, say something, and return all that comes back until the server hangs up or is silent."""
    heard = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=PATIENCE_S) as plain,
        TRUSTING.wrap_socket(plain) if tls else plain as connection,
    ):
        connection.sendall(greeting)
        while len(heard) < ENOUGH and (data := connection.recv(ENOUGH)):
            heard += data
    return heard


def speaks_tls(address: tuple[str, int]) -> bool:
    """Whether a TLS handshake succeeds there."""
    try:
        with socket.create_connection(address, timeout=PATIENCE_S) as plain, TRUSTING.wrap_socket(plain):
            return True
    except OSError:
        return False


def is_public(name: str, greeting: str, answer: bytes) -> bool:
    """Whether the port of that name may say this to a stranger."""
    if greeting in PAGES.get(name, ()) and answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")):
        return True
    allowed = (*EVERYWHERE, *([OPEN[name]] if name in OPEN else []))
    return any(pattern.fullmatch(answer) for pattern in allowed)


def test_a_stranger_hears_only_what_is_public(
    stack: Stack, of_each: Callable[[Callable[[psutil.Process], Any]], list[Any]]
) -> None:
    names = {number: name for name, number in asdict(stack.ports).items()}
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in chain.from_iterable(of_each(lambda process: process.net_connections("tcp")))
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert [port for _, port in listening if port not in names] == []
    with ThreadPoolExecutor(max_workers=32) as pool:
        encrypted = list(pool.map(speaks_tls, listening))
        knocks = [*product(listening, GREETINGS, [False])]
        knocks += product(
            (address for address, tls in zip(listening, encrypted, strict=True) if tls), GREETINGS, [True]
        )
        answers = list(pool.map(lambda each: knock(each[0], GREETINGS[each[1]], tls=each[2]), knocks))
    told = [
        (names[address[1]], greeting, tls, answer[:300])
        for (address, greeting, tls), answer in zip(knocks, answers, strict=True)
        if not is_public(names[address[1]], greeting, answer)
    ]
    assert told == []

"""What a running stack keeps from strangers who knock, from other users and machines, and from its own parts.

The stack of each XMPP server is started once for all of this.
"""

import contextlib
import os
import re
import socket
import ssl
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain, product
from pathlib import Path
from typing import Any

import psutil
import pytest
from tlim_devstack.privileges import PARTS, user_of
from tlim_devstack.services import SERVICES, package_of
from tlim_devstack.stack import Stack

pytestmark = pytest.mark.parametrize("stack", ["ejabberd", "prosody"], indirect=True, scope="module")
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="there are no privileges to give up")

LOOPBACK = {"127.0.0.1", "::1"}
REMAIN_ROOT = {"tlim_devstack.process_runner", "tlim_devstack.keeper"}  # they start the parts and listen nowhere

OfEach = Callable[[Callable[[psutil.Process], Any]], list[Any]]

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


def test_a_stranger_hears_only_what_is_public(stack: Stack, of_each: OfEach) -> None:
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


def test_only_this_machine_can_reach_it(of_each: OfEach) -> None:
    connections = chain.from_iterable(of_each(lambda process: process.net_connections("inet")))
    listening = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert listening
    assert listening <= LOOPBACK


def test_no_secret_stands_in_a_command_line(stack: Stack, of_each: OfEach) -> None:
    credentials = stack.credentials
    hidden = {*credentials.nats.values(), *credentials.postgres_roles.values(), *credentials.s3_admin}
    hidden |= {*credentials.s3_file_api, credentials.component, credentials.nats_monitor, credentials.postgres_admin}
    shown = " ".join(chain.from_iterable(of_each(lambda process: process.cmdline())))
    assert not [secret for secret in hidden if secret in shown]


def test_what_the_stack_keeps_is_closed_to_others_and_stays_so(stack: Stack, of_each: OfEach) -> None:
    assert stat.S_IMODE(stack.home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    assert [path.name for path in stack.home.iterdir() if path.stat().st_mode & 0o077] == []
    statuses = of_each(lambda process: Path(f"/proc/{process.pid}/status").read_text())
    alive = [status for status in statuses if "Umask:" in status]
    assert {status.partition("Umask:")[2].split()[0] for status in alive} == {"0077"}


@only_root
def test_only_what_starts_the_parts_runs_as_root(of_each: OfEach) -> None:
    seen = of_each(lambda process: ({*process.uids(), *process.gids()}, process.cmdline()))
    assert {command[2] for ids, command in seen if 0 in ids} == REMAIN_ROOT


@only_root
def test_every_part_has_a_user_and_a_directory_of_its_own(stack: Stack, of_each: OfEach) -> None:
    parts = [name for name in stack.supervisor.states() if name in PARTS]
    assert {name: psutil.Process(stack.supervisor.pid(name)).uids().effective for name in parts} == {
        name: user_of(name) for name in parts
    }
    assert {name: (stack.home / name).stat().st_uid for name in parts} == {name: user_of(name) for name in parts}
    assert set(of_each(lambda process: process.uids().effective)) == {0, *map(user_of, parts)}


@only_root
def test_parts_keep_no_capability_where_others_can_pass_through(stack: Stack) -> None:
    for name in set(stack.supervisor.states()).intersection(PARTS) - set(SERVICES):
        process = psutil.Process(stack.supervisor.pid(name))
        on_the_way = (*stack.home.resolve().parents, *Path(process.exe()).parents, *Path(__file__).parents)
        closed = [str(path) for path in on_the_way if not path.stat().st_mode & 0o001]
        if closed:
            pytest.skip(f"other users cannot pass through {closed[0]}, and then parts keep a capability")
        assert Path(f"/proc/{process.pid}/status").read_text().partition("CapEff:")[2].split()[0] == "0" * 16

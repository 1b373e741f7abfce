"""A client tells no server its password without TLS, and believes no login that the server has not proved."""

import asyncio
import asyncio.sslproto
import base64
import re
import ssl
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID
from tlim_client import connection
from tlim_client.connection import Connection, ServerAddress
from tlim_client.failures import ClientError, LoginRefusedError, NotReachableError
from tlim_client.login import LoginStream
from tlim_client.xmpp import XmppClient
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.impostor import SASL, Impostor, Script, impostor
from tlim_devstack.waiting import free_port
from tlim_xmpp.keeper import Patience, StreamKeeper

DOMAIN = "im.itonglian.com"
SM = "urn:xmpp:sm:3"
MIB = 1024 * 1024


@dataclass
class Login:
    """Logs alice in at an impostor, and remembers what the impostor received."""

    authority: Path
    certificate: Path
    heard: str = ""

    async def __call__(self, script: Script) -> None:
        async with impostor(script, self.certificate) as (port, connections):
            try:
                async with Connection(ServerAddress("127.0.0.1", port, DOMAIN, self.authority), "alice", "secret"):
                    pass
            finally:
                self.heard = "".join(one.heard for one in connections)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return ensure_certificates(tmp_path_factory.mktemp("certificates"), DOMAIN)


@pytest.fixture
def login(certificates: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Login:
    monkeypatch.setattr(connection, "PATIENCE", Patience(longest_delay=1, attempt=10, idle=60))
    return Login(*certificates)


async def offer(server: Impostor, *, managed: bool) -> None:
    """Say what the client can do after the login; `managed`: stream management too."""
    await server.hear(r"<stream:stream[^>]*>")
    await server.say(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>"
        "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
        f"{f'<sm xmlns={SM!r}/>' if managed else ''}</stream:features>"
    )


async def bind(server: Impostor, *, managed: bool) -> None:
    request = await server.hear(r"<iq[^>]* id=\"([^\"]+)\"")
    bound = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>alice@{DOMAIN}/r</jid></bind>"
    await server.say(f"<iq type='result' id='{request}'>{bound}</iq>")
    if managed:
        await server.hear(r"<enable[^>]*>")
        await server.say(f"<enabled xmlns='{SM}' id='1' resume='true'/>")


async def turn_carbons_on(server: Impostor, *, requests: int = 1) -> None:
    """Turn carbons on, as often as the client asks for it, and take its presence."""
    for _ in range(requests):
        request = await server.hear(r"<iq[^>]* id=\"([^\"]+)\"")
        await server.say(f"<iq type='result' id='{request}'/>")
    await server.hear(r"<presence")


async def let_in(server: Impostor, *, managed: bool = False) -> None:
    """Do what any server does after the login; `managed`: with stream management."""
    await offer(server, managed=managed)
    await bind(server, managed=managed)
    await turn_carbons_on(server)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_an_honest_server_lets_alice_in(login: Login, mechanism: str) -> None:
    async def script(server: Impostor) -> None:
        await server.greet_encrypted(mechanism)
        await server.sasl("success", await server.scram("alice", "secret", mechanism))
        await let_in(server)

    await login(script)


async def test_a_refusal_is_a_wrong_password(login: Login) -> None:
    async def script(server: Impostor) -> None:
        await server.greet_encrypted("SCRAM-SHA-256")
        await server.hear(r"</auth>")
        await server.say(f"<failure xmlns='{SASL}'><not-authorized/></failure>")

    with pytest.raises(LoginRefusedError, match="alice"):
        await login(script)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
async def test_without_tls_the_server_is_told_nothing(login: Login, mechanism: str) -> None:
    async def script(server: Impostor) -> None:
        await server.greet(mechanism)

    with pytest.raises(NotReachableError, match="TLS"):
        await login(script)
    assert "<auth" not in login.heard


async def test_a_certificate_of_another_domain_is_told_nothing(login: Login, tmp_path: Path) -> None:
    _, login.certificate = ensure_certificates(tmp_path, "evil.example")

    async def script(server: Impostor) -> None:
        await server.greet_encrypted("PLAIN")

    with pytest.raises(NotReachableError, match="certificate"):
        await login(script)
    assert "<auth" not in login.heard


async def a_bare_challenge(server: Impostor) -> None:
    await server.greet_encrypted("PLAIN")
    await server.hear(r"</auth>")
    await server.sasl("challenge")
    await let_in(server)


async def success_without_a_signature(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await server.scram("alice", "secret")
    await server.sasl("success")
    await let_in(server)


async def success_before_any_proof(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await server.sasl("success", await first_message(server, rounds=4096))
    await let_in(server)


async def endless_rounds(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await server.sasl("challenge", await first_message(server, rounds=2_000_000_000))
    await let_in(server)


async def first_message(server: Impostor, rounds: int) -> str:
    nonce = base64.b64decode(await server.hear(r"<auth[^>]*>([^<]*)</auth>")).decode().partition("r=")[2]
    return f"r={nonce}0,s={base64.b64encode(bytes(16)).decode()},i={rounds}"


@pytest.mark.parametrize(
    "script", [a_bare_challenge, success_without_a_signature, success_before_any_proof, endless_rounds]
)
async def test_nothing_but_proven_success_lets_alice_in(
    login: Login, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two of them leave the client waiting until its attempt is over.
    monkeypatch.setattr(connection, "PATIENCE", Patience(longest_delay=1, attempt=3, idle=60))
    with pytest.raises(NotReachableError):
        await login(script)
    assert "<presence" not in login.heard


async def test_a_server_that_sends_too_much_is_left_and_fills_no_memory(login: Login) -> None:
    async def script(server: Impostor) -> None:
        await server.hear(r"<stream:stream[^>]*>")
        await server.say("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>")
        while True:
            await server.say("<a>" * 20_000)

    tracemalloc.start()
    try:
        with pytest.raises(NotReachableError, match="too much"):
            await login(script)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * MIB


async def test_where_nobody_listens_one_line_says_so(login: Login) -> None:
    server = ServerAddress("127.0.0.1", 1, DOMAIN, login.authority)
    with pytest.raises(NotReachableError, match=r"127\.0\.0\.1:1"):
        await Connection(server, "alice", "secret").connect()


async def an_honest_server(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await server.sasl("success", await server.scram("alice", "secret"))
    await let_in(server)
    await server.hear("</stream:stream>")


async def fail(_: object) -> None:
    raise LookupError("a mistake")


async def test_a_connection_that_is_not_kept_any_more_is_told_to_everybody_that_waits_or_sends(
    login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StreamKeeper, "_stays_up", fail)
    async with impostor(an_honest_server, login.certificate) as (port, _):
        server = ServerAddress("127.0.0.1", port, DOMAIN, login.authority)
        async with XmppClient(server, "alice", "secret") as alice, asyncio.timeout(20):
            for _ in range(2):
                with pytest.raises(ClientError, match="a mistake"):
                    await alice.inbox.next()
            with pytest.raises(ClientError, match="a mistake"):
                alice.send_body("hello", "bob")


async def test_a_login_that_comes_when_its_attempt_was_given_up_is_not_announced(login: Login) -> None:
    client = Connection(ServerAddress("127.0.0.1", free_port(), DOMAIN, login.authority), "alice", "secret")
    with pytest.raises(NotReachableError):
        await client.connect()
    client._on_session(None)
    assert client._announcing is None


async def test_a_device_that_cannot_be_announced_says_why(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "_announce", fail)
    with pytest.raises(ClientError, match="a mistake"):
        await login(an_honest_server)


async def test_a_device_that_leaves_confirms_what_it_got_so_that_the_next_one_does_not_get_it_again(
    login: Login,
) -> None:
    async def script(server: Impostor) -> None:
        await server.greet_encrypted("SCRAM-SHA-256")
        await server.sasl("success", await server.scram("alice", "secret"))
        await let_in(server, managed=True)
        await server.say(f"<message from='bob@{DOMAIN}' id='1'><body>hi</body></message>")
        await server.hear(r"</stream:stream>")
        await server.say("</stream:stream>")

    async with (
        impostor(script, login.certificate) as (port, connections),
        Connection(ServerAddress("127.0.0.1", port, DOMAIN, login.authority), "alice", "secret") as device,
    ):
        await device.inbox.next()

    assert re.search(r"<a [^>]*h=.2.[^>]*></stream:stream>$", connections[0].heard)  # carbons are on, and the message


async def test_a_session_that_was_lost_before_it_was_announced_is_announced_when_it_is_resumed(login: Login) -> None:
    announced = asyncio.Event()

    async def script(server: Impostor) -> None:
        await server.greet_encrypted("SCRAM-SHA-256")
        await server.sasl("success", await server.scram("alice", "secret"))
        number = len(connections)
        if number == 1:
            await let_in(server, managed=True)
        elif number == 2:  # the server has lost the session; the network is lost again before carbons are on
            await offer(server, managed=True)
            await server.hear(r"<resume [^>]*>")
            await server.say(f"<failed xmlns='{SM}'/>")
            await bind(server, managed=True)
            await server.hear(r"<enable xmlns=.urn:xmpp:carbons")
        else:
            await offer(server, managed=True)
            await server.hear(r"<resume [^>]*>")
            await server.say(f"<resumed xmlns='{SM}' h='0' previd='1'/>")
            await turn_carbons_on(server, requests=2)  # the first was not confirmed, and comes again
            announced.set()
            return
        server.writer.transport.abort()

    async with (
        impostor(script, login.certificate) as (port, connections),
        Connection(ServerAddress("127.0.0.1", port, DOMAIN, login.authority), "alice", "secret"),
        asyncio.timeout(20),
    ):
        await announced.wait()


async def test_a_connection_that_was_just_lost_can_be_ended() -> None:
    stream = LoginStream(JID("alice@im.example"), "secret", ssl.create_default_context())
    nobody: Any = None
    lost: Any = asyncio.sslproto._SSLProtocolTransport(asyncio.get_running_loop(), nobody)
    lost._closed = True
    stream.transport = lost
    stream.abort()

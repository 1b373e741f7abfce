"""What passes for a login: nothing but the server's own `<success/>`, and off this machine only behind TLS."""

import asyncio
import base64
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest
from tlim_devstack.certificates import ensure_certificates
from tlim_devstack.impostor import SASL, Impostor, Script, impostor
from xmpp_bridge.sasl import LoginUnavailable, SaslLogin, WrongPasswordError

DOMAIN = "im.itonglian.com"
ELSEWHERE = "0.0.0.0"  # noqa: S104 - nobody binds to it: it leads to this machine, but is no loopback address
MIB = 1024 * 1024
PATIENCE_S = 20  # of the test itself: far over any bound that is tested


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return ensure_certificates(tmp_path_factory.mktemp("certificates"), DOMAIN)


class Desk:
    """Logs alice in at an impostor, and remembers what that heard."""

    def __init__(self, authority: Path, certificate: Path) -> None:
        self._authority, self._certificate = authority, certificate
        self.heard = ""

    async def check(self, script: Script, *, host: str = "127.0.0.1", timeout_s: float = 10) -> None:
        async with asyncio.timeout(PATIENCE_S), impostor(script, self._certificate) as (port, connections):
            timeout = timedelta(seconds=timeout_s)
            login = SaslLogin(host, port, DOMAIN, ca_file=self._authority, at_once=1, timeout=timeout)
            try:
                await login.check("alice", "secret", lambda: None)
            finally:
                self.heard = "".join(connection.heard for connection in connections)

    @property
    def was_told(self) -> bool:
        """Whether the server heard anything of the password, also only a proof of it."""
        return "<auth" in self.heard


@pytest.fixture
def desk(certificates: tuple[Path, Path]) -> Desk:
    return Desk(*certificates)


async def an_honest_server(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256", "PLAIN")
    await server.sasl("success", await server.scram("alice", "secret"))


async def an_honest_server_with_plain_alone(server: Impostor) -> None:
    await server.greet_encrypted("PLAIN")
    given = base64.b64decode(await server.hear(r"<auth[^>]*>([^<]*)</auth>"))
    assert given == b"\0alice\0secret"
    await server.sasl("success")


async def without_tls(server: Impostor) -> None:
    await server.greet("SCRAM-SHA-256", "PLAIN")
    await server.sasl("success", await server.scram("alice", "secret"))


@pytest.mark.parametrize("script", [an_honest_server, an_honest_server_with_plain_alone, without_tls])
async def test_the_right_password_is_accepted(desk: Desk, script: Script) -> None:
    await desk.check(script)


@pytest.mark.parametrize("condition", ["not-authorized", "account-disabled"])
async def test_a_failure_is_a_wrong_password(desk: Desk, condition: str) -> None:
    async def script(server: Impostor) -> None:
        await server.greet_encrypted("SCRAM-SHA-1")
        await server.hear(r"</auth>")
        await server.say(f"<failure xmlns='{SASL}'><{condition}/></failure>")

    with pytest.raises(WrongPasswordError):
        await desk.check(script)


async def a_bare_challenge(server: Impostor) -> None:
    await server.greet_encrypted("PLAIN")
    await server.hear(r"</auth>")
    await server.sasl("challenge")


async def a_challenge_in_place_of_success(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await server.sasl("challenge", await server.scram("alice", "secret"))


async def success_without_a_signature(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await server.scram("alice", "secret")
    await server.sasl("success")


async def success_with_a_wrong_signature(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await server.scram("alice", "secret")
    await server.sasl("success", f"v={base64.b64encode(bytes(32)).decode()}")


async def success_before_any_proof(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    first = base64.b64decode(await server.hear(r"<auth[^>]*>([^<]*)</auth>")).decode()
    nonce = first.partition("r=")[2]
    await server.sasl("success", f"r={nonce}0,s={base64.b64encode(bytes(16)).decode()},i=4096")
    await server.hear(r"</response>")
    await server.sasl("success")


async def another_namespace(server: Impostor) -> None:
    await server.greet_encrypted("PLAIN")
    await server.hear(r"</auth>")
    await server.say("<success xmlns='jabber:client'/>")


async def success_put_in_before_tls(server: Impostor) -> None:
    await server.greet(starttls=True)
    forged = f"<mechanisms xmlns='{SASL}'><mechanism>PLAIN</mechanism></mechanisms>"
    await server.encrypt(behind_proceed=f"<stream:features>{forged}</stream:features><success xmlns='{SASL}'/>")
    await server.greet("PLAIN")
    await server.hear(r"</auth>")
    await server.say(f"<failure xmlns='{SASL}'><temporary-auth-failure/></failure>")


async def success_in_place_of_features(server: Impostor) -> None:
    await server.greet(starttls=True)
    await server.encrypt()
    await server.hear(r"<stream:stream[^>]*>")
    await server.say(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        f"<success xmlns='{SASL}'><mechanisms xmlns='{SASL}'><mechanism>PLAIN</mechanism></mechanisms></success>"
        f"<success xmlns='{SASL}'/>"
    )


NO_SUCCESS: list[Script] = [
    a_bare_challenge,
    a_challenge_in_place_of_success,
    success_without_a_signature,
    success_with_a_wrong_signature,
    success_before_any_proof,
    another_namespace,
    success_put_in_before_tls,
    success_in_place_of_features,
]


@pytest.mark.parametrize("script", NO_SUCCESS)
async def test_nothing_else_passes_for_success(desk: Desk, script: Script) -> None:
    with pytest.raises(LoginUnavailable):
        await desk.check(script)


async def stripped(server: Impostor) -> None:
    await server.greet("SCRAM-SHA-256", "PLAIN")


async def plain_alone(server: Impostor) -> None:
    await server.greet("PLAIN")


async def refused_tls(server: Impostor) -> None:
    await server.greet("PLAIN", starttls=True)
    await server.hear(r"<starttls[^>]*>")
    await server.say("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")


@pytest.mark.parametrize(
    ("script", "host"),
    [(stripped, ELSEWHERE), (plain_alone, ELSEWHERE), (plain_alone, "127.0.0.1"), (refused_tls, "127.0.0.1")],
)
async def test_without_tls_the_server_is_told_nothing(desk: Desk, script: Script, host: str) -> None:
    with pytest.raises(LoginUnavailable):
        await desk.check(script, host=host)
    assert not desk.was_told


async def test_a_certificate_of_another_domain_is_told_nothing(certificates: tuple[Path, Path], tmp_path: Path) -> None:
    _, foreign = ensure_certificates(tmp_path, "evil.example")
    desk = Desk(certificates[0], foreign)
    with pytest.raises(LoginUnavailable):
        await desk.check(an_honest_server)
    assert not desk.was_told


async def an_endless_stream(server: Impostor) -> None:
    await server.greet_encrypted("PLAIN")
    while True:
        await server.say(" " * 65_536)


async def an_endless_stanza(server: Impostor) -> None:
    await server.hear(r"<stream:stream[^>]*>")
    await server.say("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'><stream:features>")
    while True:
        await server.say("<a>" * 20_000)


async def multiplied_entities(server: Impostor) -> None:
    await server.hear(r"<stream:stream[^>]*>")
    rows = "".join(f"<!ENTITY e{row} '{f'&e{row - 1};' * 10}'>" for row in range(1, 10))
    await server.say(
        f"<!DOCTYPE s [<!ENTITY e0 '{'x' * 10}'>{rows}]>"
        "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'><stream:features>&e9;</stream:features>"
    )


@pytest.mark.parametrize("script", [an_endless_stream, an_endless_stanza, multiplied_entities])
async def test_a_server_that_sends_too_much_is_left_and_fills_no_memory(desk: Desk, script: Script) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(LoginUnavailable):
            await desk.check(script)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB


async def one_byte_at_a_time(server: Impostor) -> None:
    await server.hear(r"<stream:stream[^>]*>")
    await server.say("<stream:stream xmlns:stream='http://etherx.jabber.org/streams'>")
    while True:
        await server.say(" ")
        await asyncio.sleep(0.01)


async def silence(server: Impostor) -> None:
    await server.hold()


async def silence_behind_tls(server: Impostor) -> None:
    await server.greet_encrypted("SCRAM-SHA-256")
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("script", [one_byte_at_a_time, silence, silence_behind_tls])
async def test_a_slow_server_is_left_in_time(desk: Desk, script: Script) -> None:
    with pytest.raises(LoginUnavailable):
        await desk.check(script, timeout_s=0.5)

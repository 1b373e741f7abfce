"""A token goes to who has the password, and nobody learns from a refusal who exists."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import UserMeet, UsersKnown
from tlim_runtime.auth import TokenVerifier
from tlim_runtime.errors import NotAuthenticated, TooManyRequests
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from tlim_runtime.throttle import Throttle
from xmpp_bridge.sasl import LoginUnavailable, WrongPasswordError
from xmpp_bridge.token_service import TokenDesk
from xmpp_bridge.tokens import TokenIssuer, read_keys


@dataclass
class FakeLogins:
    passwords: dict[str, str] = field(default_factory=lambda: {"alice": "secret"})
    is_up: bool = True
    asked: list[str] = field(default_factory=list)
    answer: asyncio.Event | None = None
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(100))

    async def check(self, user_id: str, password: str, begins: Callable[[], None]) -> None:
        async with self.slots:
            begins()
            await self._answer(user_id, password)

    async def _answer(self, user_id: str, password: str) -> None:
        self.asked.append(user_id)
        if self.answer is not None:
            await self.answer.wait()
        if not self.is_up:
            raise LoginUnavailable("away")
        if self.passwords.get(user_id) != password:
            raise WrongPasswordError


@dataclass
class FakeDirectory:
    is_up: bool = True
    seen: list[str] = field(default_factory=list)
    deactivated: set[str] = field(default_factory=set)

    async def request(self, subject: str, payload: bytes) -> bytes:
        if not self.is_up:
            raise BrokerUnavailable(f"no answer on {subject}")
        question = UserMeet.from_bytes(payload)
        self.seen.extend(question.seen)
        return UsersKnown(known=[one for one in question.ask if one not in self.deactivated]).to_bytes()


@pytest.fixture
def issuer(tmp_path: Path) -> TokenIssuer:
    key_file = tmp_path / "keys.pem"
    key_file.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return TokenIssuer(read_keys(key_file), "tlim", "tlim")


@pytest.fixture
def logins() -> FakeLogins:
    return FakeLogins()


@pytest.fixture
def directory() -> FakeDirectory:
    return FakeDirectory()


@pytest.fixture
def desk(logins: FakeLogins, directory: FakeDirectory, issuer: TokenIssuer) -> TokenDesk:
    return TokenDesk(
        logins,
        directory,
        issuer,
        per_user=Throttle("3/minute", "user"),
        failures_per_user=Throttle("3/minute", "user"),
        failures_per_address=Throttle("5/minute", "address"),
        per_session=Throttle("2/minute", "user"),
        lifetime=timedelta(hours=1),
        failure_delay=timedelta(0),
    )


async def test_the_right_password_gives_a_token_that_the_other_services_accept(
    desk: TokenDesk, directory: FakeDirectory, issuer: TokenIssuer
) -> None:
    async def keys() -> dict[str, list[dict[str, str]]]:
        return issuer.jwks()

    token = await desk.issue("Alice", "secret", "10.0.0.1")
    verifier = TokenVerifier(keys, "tlim", "tlim")
    verifier.refuse(())
    user = await verifier.verify(token.access_token)
    assert (user.user_id, user.scopes) == ("alice", frozenset())
    assert token.lifetime == timedelta(hours=1)
    assert directory.seen == ["alice"]


async def test_an_unknown_user_and_a_wrong_password_are_refused_alike(
    desk: TokenDesk, directory: FakeDirectory
) -> None:
    refusals = []
    for username in ("alice", "nobody", "not a user@all"):
        with pytest.raises(NotAuthenticated) as refused:
            await desk.issue(username, "wrong", "10.0.0.1")
        refusals.append((refused.value.detail, refused.value.headers()))
    assert refusals[0] == refusals[1] == refusals[2]
    assert directory.seen == []


async def test_a_server_that_cannot_be_asked_is_no_wrong_password(desk: TokenDesk, logins: FakeLogins) -> None:
    logins.is_up = False
    with pytest.raises(Unavailable):
        await desk.issue("alice", "secret", "10.0.0.1")


async def test_logins_while_the_server_is_away_lock_nobody_out(desk: TokenDesk, logins: FakeLogins) -> None:
    logins.is_up = False
    for _ in range(10):
        with pytest.raises(Unavailable):
            await desk.issue("alice", "secret", "10.0.0.1")
    logins.is_up = True
    await desk.issue("alice", "secret", "10.0.0.1")


async def test_logins_that_are_cancelled_lock_nobody_out(desk: TokenDesk, logins: FakeLogins) -> None:
    logins.answer = asyncio.Event()
    for _ in range(10):
        login = asyncio.create_task(desk.issue("alice", "secret", "10.0.0.1"))
        await asyncio.sleep(0)  # it runs until it waits for the XMPP server's answer
        login.cancel()
        with pytest.raises(asyncio.CancelledError):
            await login
    assert len(logins.asked) == 10
    logins.answer.set()
    await desk.issue("alice", "secret", "10.0.0.1")


async def test_a_wrong_password_counts_also_when_its_refusal_is_cancelled(
    desk: TokenDesk, logins: FakeLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(_: float) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr("xmpp_bridge.token_service.asyncio.sleep", cancelled)
        for _ in range(3):
            with pytest.raises(asyncio.CancelledError):
                await desk.issue("alice", "wrong", "10.0.0.1")
    with pytest.raises(TooManyRequests):
        await desk.issue("alice", "secret", "10.0.0.1")
    assert len(logins.asked) == 3


async def test_without_the_directory_there_is_no_token(desk: TokenDesk, directory: FakeDirectory) -> None:
    directory.is_up = False
    with pytest.raises(Unavailable):
        await desk.issue("alice", "secret", "10.0.0.1")


async def test_who_is_deactivated_gets_no_token_whatever_he_shows(desk: TokenDesk, directory: FakeDirectory) -> None:
    directory.deactivated.add("alice")
    for asked in (desk.issue("Alice", "secret", "10.0.0.1"), desk.issue_to("alice")):
        with pytest.raises(TlimError) as refused:
            await asked
        assert refused.value.code is ErrorCode.NOT_ALLOWED


async def test_tokens_of_one_user_are_limited_whatever_the_address_and_spelling(
    desk: TokenDesk, logins: FakeLogins
) -> None:
    for number, username in enumerate(("alice", "ALICE", "Alice")):
        await desk.issue(username, "secret", f"10.0.0.{number}")
    with pytest.raises(TooManyRequests) as refused:
        await desk.issue("alice", "secret", "10.0.0.9")
    assert 1 <= refused.value.retry_after <= 60
    assert len(logins.asked) == 3


async def guess(desk: TokenDesk, address: str, username: str = "alice") -> None:
    with pytest.raises(NotAuthenticated):
        await desk.issue(username, "wrong", address)


async def test_guesses_at_one_user_are_limited_for_their_address_and_lock_nobody_else_out(
    desk: TokenDesk, logins: FakeLogins
) -> None:
    for username in ("alice", "ALICE", "Alice"):
        await guess(desk, "10.0.0.1", username)
    with pytest.raises(TooManyRequests):
        await desk.issue("alice", "secret", "10.0.0.1")
    await desk.issue("alice", "secret", "10.0.0.2")
    assert len(logins.asked) == 4


async def test_an_ipv6_network_is_one_address(desk: TokenDesk) -> None:
    for host in (1, 2, 3):
        await guess(desk, f"2001:db8:0:1::{host}")
    with pytest.raises(TooManyRequests):
        await desk.issue("alice", "secret", "2001:db8:0:1:ffff:ffff:ffff:ffff")
    await desk.issue("alice", "secret", "2001:db8:0:2::1")


async def test_an_ipv4_address_is_the_same_in_ipv6(desk: TokenDesk) -> None:
    for _ in range(3):
        await guess(desk, "::ffff:10.0.0.1")
    with pytest.raises(TooManyRequests):
        await desk.issue("alice", "secret", "10.0.0.1")
    await desk.issue("alice", "secret", "::ffff:10.0.0.2")


async def test_an_office_behind_one_address_logs_in_at_nine(desk: TokenDesk, logins: FakeLogins) -> None:
    logins.passwords |= {f"user{number}": "secret" for number in range(20)}
    for number in range(20):
        await desk.issue(f"user{number}", "secret", "10.0.0.1")


async def test_the_whole_office_may_do_so_in_the_same_second(desk: TokenDesk, logins: FakeLogins) -> None:
    logins.passwords |= {f"user{number}": "secret" for number in range(20)}
    logins.slots, logins.answer = asyncio.Semaphore(4), asyncio.Event()
    office = [asyncio.create_task(desk.issue(f"user{number}", "secret", "10.0.0.1")) for number in range(20)]
    await asyncio.sleep(0)  # all of them wait for the XMPP server, or for their turn
    logins.answer.set()
    assert len(await asyncio.gather(*office)) == 20


async def test_guesses_that_wait_for_their_turn_are_limited_too(desk: TokenDesk, logins: FakeLogins) -> None:
    logins.slots = asyncio.Semaphore(2)
    guesses = (desk.issue(f"user{number}", "wrong", "10.0.0.1") for number in range(20))
    refused = [type(refusal) for refusal in await asyncio.gather(*guesses, return_exceptions=True)]
    assert (refused.count(NotAuthenticated), refused.count(TooManyRequests)) == (5, 15)
    assert len(logins.asked) == 5


@pytest.mark.parametrize("password", ["wrong", "secret"])
async def test_a_device_that_asks_again_and_again_locks_nobody_else_at_its_address_out(
    desk: TokenDesk, logins: FakeLogins, password: str
) -> None:
    logins.passwords["bob"] = "secret"
    for _ in range(20):
        with suppress(NotAuthenticated, TooManyRequests):
            await desk.issue("alice", password, "10.0.0.1")
    assert logins.asked == ["alice"] * 3
    await desk.issue("bob", "secret", "10.0.0.1")


async def test_guesses_under_way_do_not_lock_the_right_password_out(desk: TokenDesk, logins: FakeLogins) -> None:
    logins.answer = asyncio.Event()
    guesses = [asyncio.create_task(desk.issue("alice", "wrong", f"10.0.0.{number}")) for number in range(30)]
    owner = asyncio.create_task(desk.issue("alice", "secret", "10.0.1.1"))
    logins.answer.set()
    await owner
    for one in guesses:
        with pytest.raises(NotAuthenticated):
            await one


async def test_attempts_from_one_address_are_limited_whatever_the_user(desk: TokenDesk, logins: FakeLogins) -> None:
    for number in range(5):
        with pytest.raises(NotAuthenticated):
            await desk.issue(f"user{number}", "wrong", "10.0.0.1")
    with pytest.raises(TooManyRequests):
        await desk.issue("alice", "secret", "10.0.0.1")
    assert "alice" not in logins.asked


async def test_a_user_of_another_address_is_not_hurt_by_somebody_elses_limit(desk: TokenDesk) -> None:
    for number in range(5):
        with pytest.raises(NotAuthenticated):
            await desk.issue(f"user{number}", "wrong", "10.0.0.1")
    await desk.issue("alice", "secret", "10.0.0.2")


async def test_a_token_says_who_issued_it_and_until_when(desk: TokenDesk) -> None:
    token = await desk.issue("alice", "secret", "10.0.0.1")
    claims = jwt.decode(token.access_token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3600
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("tlim", "tlim", "alice")


async def test_who_is_logged_in_at_the_xmpp_server_needs_no_password(
    desk: TokenDesk, directory: FakeDirectory, logins: FakeLogins
) -> None:
    token = await desk.issue_to("Alice")
    claims = jwt.decode(token.access_token, options={"verify_signature": False})
    assert (claims["sub"], claims["scope"]) == ("alice", "")
    assert (directory.seen, logins.asked) == (["alice"], [])


async def test_tokens_for_who_is_logged_in_are_limited_on_their_own(desk: TokenDesk) -> None:
    for _ in range(2):
        await desk.issue_to("alice")
    with pytest.raises(TooManyRequests):
        await desk.issue_to("ALICE")
    await desk.issue("alice", "secret", "10.0.0.1")

import asyncio
import contextlib
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import APIRouter, Depends, FastAPI
from httpx import ASGITransport, AsyncClient, Response
from jwt.algorithms import OKPAlgorithm
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import UsersDeactivated
from tlim_protocol.subjects import Rpc
from tlim_runtime import deactivation, issuers
from tlim_runtime.app import build_app
from tlim_runtime.auth import CurrentUser, TokenVerifier, admin_user, caller, current_user, token_user
from tlim_runtime.errors import NotAuthenticated
from tlim_runtime.health import Health
from tlim_runtime.issuers import KeySet, http_jwks
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.settings import ServiceSettings


class Issuer:
    """Signs tokens and publishes its keys; can be away."""

    def __init__(self) -> None:
        self.keys = {"one": Ed25519PrivateKey.generate()}
        self.fetches = 0
        self.is_away = False

    async def jwks(self) -> Mapping[str, Any]:
        self.fetches += 1
        if self.is_away:
            raise ConnectionError("refused")
        return {"keys": [self._public(name) for name in self.keys]}

    def _public(self, name: str) -> dict[str, Any]:
        key = OKPAlgorithm.to_jwk(self.keys[name].public_key(), as_dict=True)
        return {**key, "kid": name, "alg": "EdDSA", "use": "sig"}

    def token(self, key: str = "one", **changes: Any) -> str:
        now = int(time.time())
        claims = {"sub": "Alice", "iss": "tlim", "aud": "tlim", "iat": now, "exp": now + 3600, "scope": ""}
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(claims, self.keys[key], algorithm="EdDSA", headers={"kid": key})


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def knowing(verifier: TokenVerifier) -> TokenVerifier:
    """Tell a verifier that nobody is deactivated."""
    verifier.refuse(())
    return verifier


@pytest.fixture
def verifier(issuer: Issuer) -> TokenVerifier:
    return knowing(TokenVerifier(issuer.jwks, "tlim", "tlim"))


async def test_a_good_token_names_its_normalised_user_and_scopes(issuer: Issuer, verifier: TokenVerifier) -> None:
    user = await verifier.verify(issuer.token(scope="admin other"))
    assert user == CurrentUser("alice", frozenset({"admin", "other"}))
    assert user.is_admin
    assert not (await verifier.verify(issuer.token())).is_admin


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"aud": "another"},
        {"sub": None},
        {"sub": "not a user id@"},
        {"exp": None},
        {"iat": None},
        {"exp": 1},
        {"iat": 99_999_999_999},
    ],
    ids=str,
)
async def test_a_token_with_wrong_claims_is_refused(
    issuer: Issuer, verifier: TokenVerifier, changes: dict[str, Any]
) -> None:
    with pytest.raises(NotAuthenticated):
        await verifier.verify(issuer.token(**changes))


@pytest.mark.parametrize(("skew", "is_taken"), [(55, True), (90, False)])
async def test_clocks_of_issuer_and_service_may_differ_by_a_minute(
    issuer: Issuer, verifier: TokenVerifier, skew: int, is_taken: bool
) -> None:
    now = int(time.time())
    skewed: list[dict[str, Any]] = [{"iat": now + skew}, {"nbf": now + skew}, {"exp": now - skew}]
    for changes in skewed:
        with contextlib.nullcontext() if is_taken else pytest.raises(NotAuthenticated):
            await verifier.verify(issuer.token(**changes))


async def test_tokens_signed_by_nobody_or_somebody_else_are_refused(issuer: Issuer, verifier: TokenVerifier) -> None:
    forger = Issuer()
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"kid": "one"})
    symmetric = jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": "one"})
    nonsense = "eyJhbGciOltdfQ.eyJpc3MiOiJ0bGltIn0.eA"  # {"alg":[]}, {"iss":"tlim"}
    for token in ("", "rubbish", "a.b.c", nonsense, forger.token(), unsigned, symmetric, issuer.token()[:-4] + "AAAA"):
        with pytest.raises(NotAuthenticated):
            await verifier.verify(token)


async def test_keys_are_fetched_once_and_again_for_a_new_key(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await verifier.verify(issuer.token())
    assert issuer.fetches == 1
    issuer.keys["two"] = Ed25519PrivateKey.generate()
    with pytest.raises(NotAuthenticated):  # asked a moment ago
        await verifier.verify(issuer.token("two"))
    monkeypatch.setattr(issuers, "REFETCH_AFTER_S", 0.0)
    await verifier.verify(issuer.token("two"))
    assert issuer.fetches == 2


async def test_without_keys_the_answer_is_try_again_and_recovers(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.is_away = True
    for _ in range(3):
        with pytest.raises(TlimError) as refused:
            await verifier.verify(issuer.token())
        assert refused.value.code is ErrorCode.UNAVAILABLE
    assert issuer.fetches == 1  # not by everybody who comes along
    issuer.is_away = False
    monkeypatch.setattr(issuers, "RETRY_AFTER_S", 0.0)
    assert (await verifier.verify(issuer.token())).user_id == "alice"


@pytest.fixture
def watched(verifier: TokenVerifier) -> Health:
    looked_at = Health()
    verifier.looked_after(looked_at)
    return looked_at


async def test_nobody_is_ready_before_it_has_keys_and_old_ones_are_a_warning(
    issuer: Issuer, watched: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "RETRY_AFTER_S", 3600.0)
    issuer.is_away = True
    for _ in range(2):
        assert await watched.check() == {"token keys": "there are no keys of tokens yet"}
    assert (issuer.fetches, watched.warnings) == (1, {})
    issuer.is_away = False
    monkeypatch.setattr(issuers, "RETRY_AFTER_S", 0.0)
    assert await watched.check() == {"token keys": "ok"}
    issuer.is_away = True
    monkeypatch.setattr(issuers, "KEYS_AGE_S", 0.0)
    monkeypatch.setattr(issuers, "REFETCH_AFTER_S", 0.0)
    assert await watched.check() == {"token keys": "ok"}
    assert watched.warnings == {"token keys": "the keys of tokens could not be fetched for 0 minutes"}


async def test_a_probe_that_gives_up_does_not_end_the_fetch_and_none_waits_once_there_are_keys(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = asyncio.Event()

    async def slow() -> Mapping[str, Any]:
        await answer.wait()
        return await issuer.jwks()

    keys = KeySet(slow, frozenset({"EdDSA"}))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(keys.ping(), 0.01)
    answer.set()
    await keys.ping()
    assert issuer.fetches == 1
    answer.clear()
    monkeypatch.setattr(issuers, "KEYS_AGE_S", 0.0)
    monkeypatch.setattr(issuers, "REFETCH_AFTER_S", 0.0)
    await keys.ping()  # the next fetch hangs


async def test_known_keys_serve_on_while_the_issuer_is_away(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    await verifier.verify(issuer.token())
    monkeypatch.setattr(issuers, "REFETCH_AFTER_S", 0.0)
    issuer.is_away = True
    issuer.keys["unknown"] = Ed25519PrivateKey.generate()
    with pytest.raises(TlimError):  # which has it ask the issuer
        await verifier.verify(issuer.token("unknown"))
    assert (await verifier.verify(issuer.token())).user_id == "alice"


@asynccontextmanager
async def serving_keys(issuer: Issuer, *, refused: int = 0) -> AsyncIterator[str]:
    """Serve the issuer's keys over HTTP, after so many connections that get no answer; yield the URL."""
    document = json.dumps(await issuer.jwks()).encode()
    connections = itertools.count(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if next(connections) <= refused:
            writer.transport.abort()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + document)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/keys"


async def test_keys_are_fetched_over_http(issuer: Issuer) -> None:
    async with serving_keys(issuer) as url:
        verifier = knowing(TokenVerifier(http_jwks(url), "tlim", "tlim"))
        assert (await verifier.verify(issuer.token())).user_id == "alice"
    away = knowing(TokenVerifier(http_jwks(url), "tlim", "tlim"))
    with pytest.raises(TlimError) as refused:
        await away.verify(issuer.token())
    assert refused.value.code is ErrorCode.UNAVAILABLE


async def test_one_of_several_servers_that_refuses_does_not_keep_the_keys_away(issuer: Issuer) -> None:
    async with serving_keys(issuer, refused=1) as url:
        verifier = knowing(TokenVerifier(http_jwks(url), "tlim", "tlim"))
        assert (await verifier.verify(issuer.token())).user_id == "alice"


async def test_one_of_several_servers_whose_host_has_vanished_does_not_keep_the_keys_away(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection
    connections = itertools.count(1)

    def connect_in_vain_at_first(*arguments: Any, **options: Any) -> socket.socket:
        if next(connections) == 1:
            raise TimeoutError("timed out")
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", connect_in_vain_at_first)
    async with serving_keys(issuer) as url:
        verifier = knowing(TokenVerifier(http_jwks(url), "tlim", "tlim"))
        assert (await verifier.verify(issuer.token())).user_id == "alice"
    assert next(connections) == 3


async def test_a_server_that_takes_the_request_and_is_silent_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "_FETCH_TIMEOUT_S", 0.2)
    asked = 0

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(TimeoutError):
            await http_jwks(f"http://{host}:{port}/keys")()
    assert asked == 1


@asynccontextmanager
async def nothing(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def ask(verifier: TokenVerifier, path: str, token: str | None) -> Response:
    router = APIRouter()

    @router.get("/me")
    async def me(user: Annotated[CurrentUser, Depends(current_user)]) -> str:
        return user.user_id

    @router.get("/admin")
    async def admin(user: Annotated[CurrentUser, Depends(admin_user)]) -> str:
        return user.user_id

    @router.get("/legacy")
    async def legacy(user: Annotated[CurrentUser | None, Depends(token_user)]) -> str:
        return user.user_id if user else "nobody"

    app = build_app("test", "1", ServiceSettings.placeholder(), nothing, [router])
    app.state.tokens = verifier
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        return await client.get(path, headers=headers)


async def test_endpoints_ask_for_a_token(issuer: Issuer, verifier: TokenVerifier) -> None:
    assert (await ask(verifier, "/me", None)).status_code == 401
    assert (await ask(verifier, "/me", "rubbish")).status_code == 401
    assert (await ask(verifier, "/me", issuer.token())).json() == "alice"
    assert (await ask(verifier, "/admin", issuer.token())).status_code == 403
    assert (await ask(verifier, "/admin", issuer.token(scope="admin"))).json() == "alice"
    assert (await ask(verifier, "/legacy", None)).json() == "nobody"
    assert (await ask(verifier, "/legacy", issuer.token())).json() == "alice"
    assert (await ask(verifier, "/legacy", "rubbish")).status_code == 401


async def test_endpoints_answer_503_without_keys(issuer: Issuer, verifier: TokenVerifier) -> None:
    issuer.is_away = True
    assert (await ask(verifier, "/me", issuer.token())).status_code == 503


def settings(*, trusting: bool) -> ServiceSettings:
    return ServiceSettings.placeholder().model_copy(update={"trust_request_user": trusting})


def test_a_named_user_counts_only_where_that_is_trusted_and_no_token_says_otherwise() -> None:
    alice = CurrentUser("alice", frozenset({"admin"}))
    assert caller(alice, "bob", settings(trusting=True)) is alice
    assert caller(None, "Bob", settings(trusting=True)) == CurrentUser("bob")
    for named, trusting in (("bob", False), (None, True), ("", True)):
        with pytest.raises(NotAuthenticated):
            caller(None, named, settings(trusting=trusting))
    with pytest.raises(TlimError):
        caller(None, "no@id", settings(trusting=True))


class Directory:
    """The broker, and session-api behind it."""

    def __init__(self) -> None:
        self.deactivated: list[str] = []
        self.is_up = True
        self._asked = asyncio.Event()

    async def request(self, subject: str, payload: bytes) -> bytes:
        assert (subject, payload) == (Rpc.USER_DEACTIVATED, b"")
        self._asked.set()
        if not self.is_up:
            raise BrokerUnavailable("away")
        return UsersDeactivated(users=self.deactivated).to_bytes()

    async def is_asked_again(self) -> None:
        """Wait until the answer before the present one has been used."""
        async with asyncio.timeout(20):
            for _ in range(2):
                self._asked.clear()
                await self._asked.wait()


async def test_a_deactivated_users_tokens_are_refused_until_the_user_is_active_again(
    issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deactivation, "READ_EVERY_S", 0)
    directory, token = Directory(), issuer.token()
    reading = deactivation.asked_of_session_api(directory)
    async with deactivation.deactivated_users_refused(reading, verifier, Health()):
        await directory.is_asked_again()
        assert (await verifier.verify(token)).user_id == "alice"
        directory.deactivated = ["alice"]
        await directory.is_asked_again()
        with pytest.raises(NotAuthenticated, match="deactivated"):
            await verifier.verify(token)
        assert (await verifier.verify(issuer.token(sub="bob"))).user_id == "bob"
        directory.is_up = False
        await directory.is_asked_again()
        with pytest.raises(NotAuthenticated, match="deactivated"):
            await verifier.verify(token)
        directory.is_up, directory.deactivated = True, []
        await directory.is_asked_again()
        assert (await verifier.verify(token)).user_id == "alice"


async def test_before_anybody_has_told_who_is_deactivated_no_token_counts_and_the_process_is_not_ready(
    issuer: Issuer,
) -> None:
    verifier, health, directory = TokenVerifier(issuer.jwks, "tlim", "tlim"), Health(), Directory()
    directory.is_up, directory.deactivated = False, ["alice"]
    reading = deactivation.asked_of_session_api(directory)
    async with deactivation.deactivated_users_refused(reading, verifier, health):
        assert await health.check() == {"deactivated users": "away"}
        with pytest.raises(TlimError) as refused:
            await verifier.verify(issuer.token(sub="bob"))
        assert refused.value.code is ErrorCode.UNAVAILABLE
        directory.is_up = True
        assert await health.check() == {"deactivated users": "ok"}
        directory.is_up = False
        assert await health.check() == {"deactivated users": "ok"}, "the list stays as it is"
        assert (await verifier.verify(issuer.token(sub="bob"))).user_id == "bob"
        with pytest.raises(NotAuthenticated, match="deactivated"):
            await verifier.verify(issuer.token())


async def test_the_first_request_of_a_service_finds_the_list_of_deactivated_users(
    issuer: Issuer,
) -> None:
    verifier, directory = TokenVerifier(issuer.jwks, "tlim", "tlim"), Directory()
    directory.deactivated = ["alice"]
    async with deactivation.deactivated_users_refused(deactivation.asked_of_session_api(directory), verifier, Health()):
        with pytest.raises(NotAuthenticated, match="deactivated"):
            await verifier.verify(issuer.token())

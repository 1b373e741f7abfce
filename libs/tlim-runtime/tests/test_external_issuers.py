"""Tokens of an issuer outside, whose keys come over real HTTP: what counts, what is refused, what an outage means."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime import issuers
from tlim_runtime.auth import CurrentUser, TokenVerifier
from tlim_runtime.errors import NotAuthenticated
from tlim_runtime.settings import ExternalIssuer, ServiceSettings

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ISSUER = "https://id.example.org"
RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)


def public(key: PrivateKey) -> dict[str, Any]:
    match key:
        case rsa.RSAPrivateKey():
            return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)


class Provider:
    """An OIDC provider's JWKS endpoint; `answering` is clear while it hangs, `blanks` come one by one before a set."""

    def __init__(self) -> None:
        self.keys: dict[str, PrivateKey] = {
            "RS256": RSA_KEY,
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        self.more: list[dict[str, Any]] = []
        self.fetches = self.blanks = 0
        self.answering, self.asked = asyncio.Event(), asyncio.Event()
        self.answering.set()
        self.url = ""
        self.status = "200 OK"
        self.serving = set[asyncio.Task[None] | None]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        self.fetches += 1
        if not self.answering.is_set():
            self.asked.set()
            await self.answering.wait()
        keys = [{**public(key), "kid": name} for name, key in self.keys.items()]
        document = json.dumps({"keys": [*self.more, *keys]}).encode()
        writer.write(f"HTTP/1.1 {self.status}\r\nConnection: close\r\n\r\n".encode())
        while self.blanks:
            self.blanks -= 1
            writer.write(b" ")
            await asyncio.sleep(0.01)  # the pace of this network, nothing is waited for
        writer.write(document)
        with contextlib.suppress(ConnectionError):  # who asked may have given up
            await writer.drain()
        writer.close()

    def settings(self, **changes: Any) -> ExternalIssuer:
        given = {"issuer": ISSUER, "jwks_url": self.url, "audience": "chat", "algorithms": ["RS256", "ES256", "EdDSA"]}
        return ExternalIssuer(**(given | changes))

    def verifier(self, **changes: Any) -> TokenVerifier:
        verifier = TokenVerifier(no_keys, "tlim", "tlim", [self.settings(**changes)])
        verifier.refuse(())
        return verifier

    def token(self, key: str = "RS256", alg: str | None = None, kid: str | None = None, **changes: Any) -> str:
        return jwt.encode(claims(**changes), self.keys[key], algorithm=alg or key, headers={"kid": kid or key})


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"sub": "Alice", "iss": ISSUER, "aud": "chat", "iat": now, "exp": now + 600}
    return {name: value for name, value in (given | changes).items() if value is not None}


async def no_keys() -> dict[str, Any]:
    return {"keys": []}


@pytest_asyncio.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    monkeypatch.setattr(issuers, "_FETCH_TIMEOUT_S", 30.0)  # for a busy machine
    provider = Provider()
    async with await asyncio.start_server(provider.serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        provider.url = f"http://{host}:{port}/keys"
        yield provider
        provider.answering.set()
        provider.blanks = 0
        await asyncio.gather(*filter(None, provider.serving))


async def refusal(verifier: TokenVerifier, token: str) -> ErrorCode:
    with pytest.raises(TlimError) as refused:
        await verifier.verify(token)
    assert isinstance(refused.value, NotAuthenticated) == (refused.value.code is ErrorCode.NOT_ALLOWED)
    return refused.value.code


async def test_a_service_takes_tokens_of_the_issuers_that_its_settings_name(provider: Provider) -> None:
    settings = ServiceSettings.placeholder()
    assert await refusal(TokenVerifier.of(settings), provider.token()) is ErrorCode.NOT_ALLOWED
    verifier = TokenVerifier.of(settings.model_copy(update={"external_issuers": [provider.settings()]}))
    verifier.refuse(())
    assert (await verifier.verify(provider.token())).user_id == "alice"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_of_each_algorithm_names_its_user(provider: Provider, algorithm: str) -> None:
    assert await provider.verifier().verify(provider.token(algorithm)) == CurrentUser("alice")


async def test_the_claim_that_names_the_user_is_a_setting(provider: Provider) -> None:
    verifier = provider.verifier(user_claim="preferred_username")
    assert (await verifier.verify(provider.token(preferred_username="Bob"))).user_id == "bob"
    for named in (None, "", "no@id", 7, ["bob"]):
        assert await refusal(verifier, provider.token(preferred_username=named)) is ErrorCode.NOT_ALLOWED


@pytest.mark.parametrize(
    "name",
    ["ＡＬＩＣＥ", "al\u00adice", "𝐚𝐥𝐢𝐜𝐞", "ali\u200dce", "alic\u212f", "straße", "\u212aim", "e\u0301va", "ſam"],
)
async def test_a_claim_that_only_comes_to_be_a_user_id_names_nobody(provider: Provider, name: str) -> None:
    assert await refusal(provider.verifier(), provider.token(sub=name)) is ErrorCode.NOT_ALLOWED


@pytest.mark.parametrize(
    ("name", "user_id"), [("Alice", "alice"), ("ALICE", "alice"), ("Éva", "éva"), ("张三", "张三")]
)
async def test_a_claim_in_upper_or_lower_case_names_its_user(provider: Provider, name: str, user_id: str) -> None:
    assert (await provider.verifier().verify(provider.token(sub=name))).user_id == user_id


async def test_only_the_configured_scope_means_admin_and_no_other_scope_counts(provider: Provider) -> None:
    verifier = provider.verifier(admin_scope="tlim.manage")
    right: list[dict[str, Any]] = [
        {"scope": "openid tlim.manage"},
        {"scp": ["x", "tlim.manage"]},
        {"scp": "tlim.manage"},
    ]
    wrong: list[dict[str, Any]] = [
        {"scope": "admin openid"},
        {"scp": ["admin"]},
        {"scope": 7},
        {"scope": "xtlim.manage"},
        {},
    ]
    for said in right:
        assert (await verifier.verify(provider.token(**said))).scopes == {"admin"}
    for said in wrong:
        assert (await verifier.verify(provider.token(**said))).scopes == frozenset()
    assert not (await provider.verifier().verify(provider.token(scope="admin None"))).is_admin


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "tlim"},
        {"aud": None},
        {"iss": "https://evil.example.org"},
        {"iss": None},
        {"sub": None},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"nbf": 99_999_999_999},
    ],
    ids=str,
)
async def test_a_token_with_wrong_claims_is_refused(provider: Provider, changes: dict[str, Any]) -> None:
    assert await refusal(provider.verifier(), provider.token(**changes)) is ErrorCode.NOT_ALLOWED


async def test_no_issuer_signs_in_anothers_name(provider: Provider) -> None:
    own = ed25519.Ed25519PrivateKey.generate()

    async def own_keys() -> dict[str, Any]:
        return {"keys": [{**public(own), "kid": "EdDSA"}]}

    verifier = TokenVerifier(own_keys, "tlim", "tlim", [provider.settings()])
    as_ours = provider.token("EdDSA", iss="tlim", aud="tlim", scope="admin")
    as_theirs = jwt.encode(claims(), own, algorithm="EdDSA", headers={"kid": "EdDSA"})
    for token in (as_ours, as_theirs):
        assert await refusal(verifier, token) is ErrorCode.NOT_ALLOWED


async def test_an_algorithm_that_is_not_allowed_is_refused_without_asking_for_keys(provider: Provider) -> None:
    verifier = provider.verifier(algorithms=["ES256"])
    for token in (provider.token("RS256"), provider.token("EdDSA"), by_hand("none", b""), by_hand("HS256", b"x" * 32)):
        assert await refusal(verifier, token) is ErrorCode.NOT_ALLOWED
    assert provider.fetches == 0


async def test_a_public_key_is_never_taken_for_a_shared_secret(provider: Provider) -> None:
    verifier = provider.verifier()
    await verifier.verify(provider.token())
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert await refusal(verifier, by_hand("HS256", pem)) is ErrorCode.NOT_ALLOWED


async def test_a_key_serves_its_own_algorithm_only(provider: Provider) -> None:
    verifier = provider.verifier()
    assert await refusal(verifier, provider.token("ES256", kid="RS256")) is ErrorCode.NOT_ALLOWED
    assert await refusal(verifier, provider.token("RS256", alg="PS256")) is ErrorCode.NOT_ALLOWED


async def test_keys_that_are_weak_secret_for_encryption_or_unknown_are_not_used(provider: Provider) -> None:
    weak = rsa.generate_private_key(public_exponent=65_537, key_size=1024)  # noqa: S505 - that is the point
    provider.more = [
        {**public(weak), "kid": "weak"},
        {**public(RSA_KEY), "kid": "encryption", "use": "enc"},
        {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(b"x" * 32).decode()},
        {"kty": "of the future", "kid": "future"},
    ]
    verifier = provider.verifier()
    await verifier.verify(provider.token())
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        signed_weakly = jwt.encode(claims(), weak, algorithm="RS256", headers={"kid": "weak"})
    for token in (signed_weakly, provider.token(kid="encryption"), by_hand("HS256", b"x" * 32, "secret")):
        assert await refusal(verifier, token) is ErrorCode.NOT_ALLOWED


async def test_keys_are_fetched_once_and_again_for_a_new_one_but_not_at_every_nonsense(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = provider.verifier()
    await asyncio.gather(*(verifier.verify(provider.token()) for _ in range(20)))
    assert provider.fetches == 1
    for number in range(20):
        assert await refusal(verifier, provider.token(kid=f"nonsense-{number}")) is ErrorCode.NOT_ALLOWED
    assert provider.fetches == 1
    monkeypatch.setattr(issuers, "REFETCH_AFTER_S", 0.0)
    provider.keys["new"] = ed25519.Ed25519PrivateKey.generate()
    assert (await verifier.verify(provider.token("new", alg="EdDSA"))).user_id == "alice"
    assert provider.fetches == 2


async def test_in_an_outage_known_keys_serve_on_and_unknown_ones_are_to_be_tried_again(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = provider.verifier(jwks_url=provider.url)
    await verifier.verify(provider.token())
    monkeypatch.setattr(issuers, "REFETCH_AFTER_S", 0.0)
    monkeypatch.setattr(issuers, "_FETCH_TIMEOUT_S", 0.01)
    provider.answering.clear()
    assert await refusal(verifier, provider.token(kid="rotated")) is ErrorCode.UNAVAILABLE
    assert await refusal(verifier, provider.token(kid="rotated")) is ErrorCode.UNAVAILABLE
    assert (await verifier.verify(provider.token())).user_id == "alice"


async def test_known_keys_end_when_they_could_not_be_fetched_again_for_as_long_as_they_live(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = provider.verifier()
    await verifier.verify(provider.token())
    now = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(issuers, "time", clock)
    provider.status = "500 Internal Server Error"
    now += issuers.KEYS_AGE_S - 1
    assert (await verifier.verify(provider.token())).user_id == "alice"
    for _ in range(3):
        now += issuers.RETRY_AFTER_S
        assert await refusal(verifier, provider.token()) is ErrorCode.UNAVAILABLE
    provider.status = "200 OK"
    del provider.keys["RS256"]
    now += issuers.RETRY_AFTER_S
    withdrawn = jwt.encode(claims(), RSA_KEY, algorithm="RS256", headers={"kid": "RS256"})
    assert await refusal(verifier, withdrawn) is ErrorCode.NOT_ALLOWED
    assert (await verifier.verify(provider.token("EdDSA"))).user_id == "alice"


async def test_a_slow_renewal_in_the_background_is_one_however_many_ask(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = provider.verifier()
    await verifier.verify(provider.token())
    now = time.monotonic()
    monkeypatch.setattr(issuers, "time", SimpleNamespace(monotonic=lambda: now))
    provider.answering.clear()
    now += issuers.KEYS_AGE_S * 0.6
    for _ in range(20):
        now += issuers.REFETCH_AFTER_S
        assert (await verifier.verify(provider.token())).user_id == "alice"
    await provider.asked.wait()
    renewals = [task for task in asyncio.all_tasks() if task.get_name() == "token keys"]
    assert (len(renewals), provider.fetches) == (1, 2)


async def test_a_set_that_comes_byte_by_byte_holds_nobody_up(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "_FETCH_TIMEOUT_S", 0.1)
    provider.blanks = 500
    assert await refusal(provider.verifier(), provider.token()) is ErrorCode.UNAVAILABLE


async def test_a_redirect_of_the_issuer_is_not_followed(provider: Provider) -> None:
    provider.status = f"302 Found\r\nLocation: {provider.url}"
    assert await refusal(provider.verifier(), provider.token()) is ErrorCode.UNAVAILABLE
    assert provider.fetches == 1


async def test_a_set_without_end_is_not_kept(provider: Provider) -> None:
    provider.more = [{"kty": "x" * 2**20}]
    assert await refusal(provider.verifier(), provider.token()) is ErrorCode.UNAVAILABLE


async def test_known_keys_are_renewed_in_the_background(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = provider.verifier()
    await verifier.verify(provider.token())
    later = time.monotonic() + issuers.KEYS_AGE_S * 0.6
    monkeypatch.setattr(issuers, "time", SimpleNamespace(monotonic=lambda: later))
    provider.answering.clear()
    assert (await verifier.verify(provider.token())).user_id == "alice"  # while the provider hangs
    await provider.asked.wait()
    provider.keys["new"] = ed25519.Ed25519PrivateKey.generate()
    provider.answering.set()
    assert (await verifier.verify(provider.token("new", alg="EdDSA"))).user_id == "alice"  # waits for the same fetch
    assert provider.fetches == 2


def by_hand(algorithm: str, secret: bytes, kid: str = "RS256") -> str:
    """Return a token as an attacker makes it: PyJWT itself refuses to."""
    parts = [json.dumps(part).encode() for part in ({"alg": algorithm, "kid": kid}, claims())]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = b"" if algorithm == "none" else hmac.digest(secret, signed, hashlib.sha256)
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

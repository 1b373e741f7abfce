"""A signature is checked once; everything that may change meanwhile counts at each use of the token."""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime import issuers, proven
from tlim_runtime.auth import TokenVerifier
from tlim_runtime.errors import NotAuthenticated


class Signer:
    """Signs tokens and publishes its keys by id; counts how many signatures are checked, of whomever."""

    def __init__(self) -> None:
        self.keys = {"one": Ed25519PrivateKey.generate()}
        self.checked = 0

    async def jwks(self) -> Mapping[str, Any]:
        if not self.keys:
            raise ConnectionError("refused")
        public = {name: OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) for name, key in self.keys.items()}
        return {"keys": [{**key, "kid": name, "alg": "EdDSA"} for name, key in public.items()]}

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {"sub": "alice", "iss": "tlim", "aud": "tlim", "iat": now - 7200, "exp": now + 3600, **changes}
        return jwt.encode(claims, self.keys["one"], algorithm="EdDSA", headers={"kid": "one"})


@pytest.fixture
def signer(monkeypatch: pytest.MonkeyPatch) -> Signer:
    signer, check = Signer(), OKPAlgorithm.verify

    def counted(self: OKPAlgorithm, *arguments: Any) -> bool:
        signer.checked += 1
        return check(self, *arguments)

    monkeypatch.setattr(OKPAlgorithm, "verify", counted)
    return signer


@pytest.fixture
def verifier(signer: Signer) -> TokenVerifier:
    verifier = TokenVerifier(signer.jwks, "tlim", "tlim")
    verifier.refuse([])
    return verifier


async def refusal(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(NotAuthenticated) as refused:
        await verifier.verify(token)
    return refused.value.detail


def move_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have everybody who reads tokens believe that it is so much later, or earlier."""
    moved = SimpleNamespace(now=lambda tz: datetime.now(tz) + timedelta(seconds=seconds))
    monkeypatch.setattr("jwt.api_jwt.datetime", moved)
    monkeypatch.setattr(proven, "time", SimpleNamespace(time=lambda: time.time() + seconds))


async def fetch_keys(signer: Signer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the verifier fetch the keys anew: with a token whose key it does not know yet."""
    monkeypatch.setattr(issuers, "REFETCH_AFTER_S", 0.0)
    signer.keys["new"] = Ed25519PrivateKey.generate()
    await refusal(verifier, jwt.encode({"iss": "tlim"}, signer.keys["new"], "EdDSA", headers={"kid": "new"}))


async def test_a_signature_is_checked_once(signer: Signer, verifier: TokenVerifier) -> None:
    token = signer.token(scope="admin")
    users = [await verifier.verify(token) for _ in range(3)]
    assert [(user.user_id, user.is_admin) for user in users] == [("alice", True)] * 3
    assert signer.checked == 1


async def test_a_token_that_differs_from_one_that_is_known_is_checked_itself(
    signer: Signer, verifier: TokenVerifier
) -> None:
    token = signer.token()
    await verifier.verify(token)
    header, _, signature = token.split(".")
    changed = {**jwt.decode(token, options={"verify_signature": False}), "sub": "bob"}
    _, claims, _ = jwt.encode(changed, "x" * 32).split(".")
    for forged in (f"{header}.{claims}.{signature}", token[:-4] + "AAAA", token + "="):
        await refusal(verifier, forged)
    assert (await verifier.verify(token)).user_id == "alice"


async def test_a_refused_token_is_not_remembered(signer: Signer, verifier: TokenVerifier) -> None:
    token = signer.token(aud="another")
    for _ in range(2):
        await refusal(verifier, token)
    assert signer.checked == 2


async def test_a_known_token_ends_when_its_time_is_over(
    signer: Signer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signer.token()
    await verifier.verify(token)
    move_clock(monkeypatch, 3600 + 50)  # the clocks of issuer and service may differ by a minute
    await verifier.verify(token)
    assert signer.checked == 1
    move_clock(monkeypatch, 3600 + 70)
    assert await refusal(verifier, token) == "the token has expired"


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_a_known_token_does_not_count_before_its_time_when_the_clock_is_set_back(
    signer: Signer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    token = signer.token(**{claim: int(time.time())})
    await verifier.verify(token)
    move_clock(monkeypatch, -70)
    assert await refusal(verifier, token) == "the token is not valid here"
    move_clock(monkeypatch, 0)
    assert (await verifier.verify(token)).user_id == "alice"


async def test_a_known_token_ends_with_its_key(
    signer: Signer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signer.token()
    await verifier.verify(token)
    del signer.keys["one"]
    await fetch_keys(signer, verifier, monkeypatch)
    assert await refusal(verifier, token) == "the token's key is not known"


async def test_a_known_token_ends_when_another_key_has_the_id_of_its_key(
    signer: Signer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signer.token()
    await verifier.verify(token)
    signer.keys["one"] = Ed25519PrivateKey.generate()
    await fetch_keys(signer, verifier, monkeypatch)
    assert await refusal(verifier, token) == "the token is not valid here"


async def test_a_known_token_counts_no_longer_than_its_key_may_go_without_being_fetched(
    signer: Signer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signer.token()
    await verifier.verify(token)
    signer.keys.clear()
    now = time.monotonic() + issuers.KEYS_AGE_S
    monkeypatch.setattr(issuers, "time", SimpleNamespace(monotonic=lambda: now))
    with pytest.raises(TlimError) as refused:
        await verifier.verify(token)
    assert refused.value.code is ErrorCode.UNAVAILABLE


async def test_a_known_token_of_a_deactivated_user_is_refused_at_once(signer: Signer, verifier: TokenVerifier) -> None:
    token = signer.token()
    await verifier.verify(token)
    verifier.refuse(["alice"])
    assert await refusal(verifier, token) == "your account is deactivated"
    verifier.refuse([])
    assert (await verifier.verify(token)).user_id == "alice"


async def test_only_the_tokens_that_were_used_last_are_known(
    signer: Signer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proven, "REMEMBERED", 2)
    one, two, three = (signer.token(jti=name) for name in ("one", "two", "three"))
    for token in (one, two, one, three):  # `two` is pushed out
        await verifier.verify(token)
    assert signer.checked == 3
    for token in (three, one):
        await verifier.verify(token)
    assert signer.checked == 3
    await verifier.verify(two)
    assert signer.checked == 4

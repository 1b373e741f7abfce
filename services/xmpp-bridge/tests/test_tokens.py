"""Keys come from a PEM file in its order: the first signs, all are published, anything odd is refused."""

from datetime import timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from tlim_runtime.auth import TokenVerifier
from xmpp_bridge import admin_token
from xmpp_bridge.tokens import KeyFileError, TokenIssuer, read_keys

RFC_8037_KEY = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_8037_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
PLAIN = NoEncryption()


def pem(key: Ed25519PrivateKey | None = None, encryption: KeySerializationEncryption = PLAIN) -> bytes:
    key = key or Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.pem"


def write(key_file: Path, content: bytes) -> TokenIssuer:
    key_file.write_bytes(content)
    return TokenIssuer(read_keys(key_file), "tlim", "tlim")


def test_a_key_is_named_by_its_thumbprint(key_file: Path) -> None:
    key_file.write_bytes(pem(Ed25519PrivateKey.from_private_bytes(RFC_8037_KEY)))  # RFC 8037 appendix A
    (key,) = read_keys(key_file)
    assert key.key_id == RFC_8037_THUMBPRINT


async def test_the_first_key_signs_and_all_verify(key_file: Path) -> None:
    old, new = pem(), pem()
    before = write(key_file, old)
    after = write(key_file, new + old)

    async def keys() -> dict[str, list[dict[str, str]]]:
        return after.jwks()

    verifier = TokenVerifier(keys, "tlim", "tlim")
    verifier.refuse(())
    tokens = [issuer.issue("alice", timedelta(hours=1)) for issuer in (before, after)]
    assert [(await verifier.verify(token)).user_id for token in tokens] == ["alice", "alice"]
    assert [jwt.get_unverified_header(token)["kid"] for token in tokens] == [
        key["kid"] for key in reversed(after.jwks()["keys"])
    ]


def test_no_private_part_is_published(key_file: Path) -> None:
    (published,) = write(key_file, pem()).jwks()["keys"]
    assert set(published) == {"kty", "crv", "x", "kid", "use", "alg"}


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"nonsense",
        b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n",
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN),
        pem() + generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN),
        pem(encryption=BestAvailableEncryption(b"secret")),
    ],
    ids=["missing", "empty", "text", "broken", "another kind", "one of another kind", "encrypted"],
)
def test_a_file_that_is_not_only_ed25519_keys_is_refused(key_file: Path, content: bytes | None) -> None:
    if content is not None:
        key_file.write_bytes(content)
    with pytest.raises(KeyFileError, match=r"keys\.pem"):
        read_keys(key_file)


async def test_the_admin_command_prints_a_short_lived_token_with_admin_scope(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    issuer = write(key_file, pem())
    monkeypatch.setenv("TLIM_TOKEN_KEY_FILE", str(key_file))
    monkeypatch.setattr("sys.argv", ["admin_token", "--minutes", "5"])
    assert admin_token.main() == 0

    async def keys() -> dict[str, list[dict[str, str]]]:
        return issuer.jwks()

    token = capsys.readouterr().out.strip()
    verifier = TokenVerifier(keys, "tlim", "tlim")
    verifier.refuse(())
    user = await verifier.verify(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert user.is_admin
    assert claims["exp"] - claims["iat"] == 300


def test_the_admin_command_says_in_one_line_what_is_missing(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TLIM_TOKEN_KEY_FILE", str(key_file))
    monkeypatch.setattr("sys.argv", ["admin_token"])
    assert admin_token.main() == 1
    assert capsys.readouterr().err.count("\n") == 1

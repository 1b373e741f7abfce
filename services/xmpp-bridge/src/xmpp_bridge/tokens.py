"""Access tokens: Ed25519 keys from a PEM file, JWTs signed with the first, all of them published (RFC 7517, 8037)."""

import base64
import hashlib
import json
import re
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

ALGORITHM = "EdDSA"
ADMIN_SCOPE = "admin"

_PEM_BLOCK = re.compile(rb"-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----\s*", re.DOTALL)


class KeyFileError(Exception):
    """The key file is missing, or holds anything other than unencrypted Ed25519 private keys in PEM."""


class SigningKey(NamedTuple):
    """A private key and the JWK members of its public half; `key_id` is the RFC 7638 thumbprint."""

    private: Ed25519PrivateKey
    public: dict[str, str]
    key_id: str


def read_keys(path: Path) -> list[SigningKey]:
    """Return the keys of a PEM file in its order, at least one; raises KeyFileError.

    To rotate, put the new key second and wait until all verifiers have fetched it. Then move it to the front. Remove
    the old key when its last token has expired.
    """
    try:
        blocks = _PEM_BLOCK.findall(path.read_bytes())
        keys = [load_pem_private_key(block, password=None) for block in blocks]
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: {error}") from error
    signing = [_describe(key) for key in keys if isinstance(key, Ed25519PrivateKey)]
    if not signing or len(signing) != len(keys):
        raise KeyFileError(f"{path}: holds no Ed25519 private key, or one of another kind")
    return signing


class TokenIssuer:
    """Signs tokens for the four services and publishes the keys that verify them."""

    def __init__(self, keys: Sequence[SigningKey], issuer: str, audience: str) -> None:
        self._keys = tuple(keys)
        self._issuer = issuer
        self._audience = audience

    def issue(self, subject: str, lifetime: timedelta, scope: str = "") -> str:
        """Return a JWT for `subject` (a normalised user id) that is valid from now for `lifetime`."""
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "scope": scope,
            "iat": now,
            "exp": now + int(lifetime.total_seconds()),
            "jti": uuid.uuid4().hex,
        }
        key = self._keys[0]
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.key_id})

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the JSON Web Key Set of all public keys."""
        return {"keys": [{**key.public, "kid": key.key_id, "use": "sig", "alg": ALGORITHM} for key in self._keys]}


def _describe(private: Ed25519PrivateKey) -> SigningKey:
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    public = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
    canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()  # RFC 7638 section 3.2
    return SigningKey(private, public, _base64url(hashlib.sha256(canonical).digest()))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""Tokens whose signature was checked: to check it again at each request costs as much as the request's own work."""

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import jwt

LEEWAY_S = 60
"""How far the clocks of issuer and service may differ: without NTP they drift by seconds a day."""

REMEMBERED = 4096
"""So many tokens are remembered, at about 0.5 KB each. Of more people than this, those who have been silent for longest
have their signatures checked again, which takes 0.2 ms of the processor."""


@dataclass(frozen=True, slots=True)
class ProvenToken:
    """What a token says, and the key that has signed it. It counts from `begins` to before `ends` (epoch seconds)."""

    issuer: str
    key_id: str
    key: jwt.PyJWK
    begins: float
    ends: float
    user_id: str
    scopes: frozenset[str]

    def counts_with(self, key: jwt.PyJWK) -> bool:
        """Return whether the token counts now, if `key` is what its issuer has under `key_id` today.

        Keys that were fetched anew are other objects, also if nothing has changed: then the signature is checked again.
        """
        return key is self.key and self.begins <= time.time() < self.ends


def time_of(claims: Mapping[str, Any]) -> tuple[float, float]:
    """Return from when to when checked claims count (epoch seconds): `iat`, `nbf` and `exp`, with LEEWAY_S."""
    return max(int(claims["iat"]), int(claims.get("nbf", 0))) - LEEWAY_S, int(claims["exp"]) + LEEWAY_S


class ProvenTokens:
    """The last REMEMBERED tokens that were used. They are kept by digest, so that a long token takes no more memory."""

    def __init__(self) -> None:
        self._by_digest: OrderedDict[bytes, ProvenToken] = OrderedDict()

    def find(self, token: str) -> ProvenToken | None:
        """Return what is known of a token, if its signature was checked. The caller looks whether it still counts."""
        digest = _digest(token)
        found = self._by_digest.get(digest)
        if found is not None:
            self._by_digest.move_to_end(digest)
        return found

    def keep(self, token: str, proven: ProvenToken) -> None:
        """Remember a token whose signature was checked."""
        digest = _digest(token)
        self._by_digest[digest] = proven
        self._by_digest.move_to_end(digest)
        if len(self._by_digest) > REMEMBERED:
            self._by_digest.popitem(last=False)


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogatepass")).digest()

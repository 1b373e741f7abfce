"""The issuers of tokens and their public keys. The keys are JWK sets (RFC 7517), fetched over HTTP and kept."""

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import jwt
from tlim_protocol.errors import ErrorCode, TlimError

from tlim_runtime.background import Tasks
from tlim_runtime.errors import NotAuthenticated
from tlim_runtime.logging import get_logger
from tlim_runtime.outgoing import opener
from tlim_runtime.settings import ExternalIssuer

logger = get_logger(__name__)

REFETCH_AFTER_S = 10.0
"""How often we ask an issuer at most because of an unknown key id. It may be a new key, or somebody's nonsense."""

RETRY_AFTER_S = 1.0
"""How often we ask at most after a failure. We notice soon that the issuer is back; and while it is away, not every
request has to ask it."""

KEYS_AGE_S = 3600.0
"""A withdrawn key stops working within this time, also when the issuer does not answer. Our own tokens live equally
long by default."""

_FETCH_TIMEOUT_S = 3.0
_CONNECTIONS = 3
"""Behind a name can be several servers. When one refuses, because it has just started or ends, or when its host has
vanished, the next connection may lead to another."""

_MAX_JWKS_BYTES = 1024 * 1024


JwksSource = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns a JWK set (RFC 7517) or raises; any exception counts as 'keys unavailable'."""


def http_jwks(url: str, *, outside: bool = False) -> JwksSource:
    """Return a source that fetches the JWK set at `url`; with `outside`, through the proxy of the environment."""
    server = opener(outside=outside)

    def fetch() -> Mapping[str, Any]:
        with server.open(url, timeout=_FETCH_TIMEOUT_S) as answer:
            keys: Mapping[str, Any] = json.loads(_read_in_time(answer))
        return keys

    def fetch_from_one_of_them() -> Mapping[str, Any]:
        for _ in range(_CONNECTIONS - 1):
            try:
                return fetch()
            except ConnectionError:
                continue
            except URLError as error:  # no request was sent: a server that is slow to answer is no URLError
                if not isinstance(error.reason, ConnectionError | TimeoutError):
                    raise
        return fetch()

    async def fetch_in_thread() -> Mapping[str, Any]:
        return await asyncio.to_thread(fetch_from_one_of_them)

    return fetch_in_thread


def _read_in_time(answer: http.client.HTTPResponse) -> bytes:
    """Return an issuer's answer; raises TimeoutError when all of it takes too long.

    The socket's own time-out is not enough: it begins anew with every byte.
    """
    deadline = time.monotonic() + _FETCH_TIMEOUT_S
    document = bytearray()
    while chunk := answer.read1(_MAX_JWKS_BYTES - len(document)):
        document += chunk
        if time.monotonic() > deadline:
            raise TimeoutError(f"the answer takes longer than {_FETCH_TIMEOUT_S:g} s")
    return bytes(document)


class KeySet:
    """The keys of one issuer. For a known key a caller waits for the network only if the keys are KEYS_AGE_S old.

    While the issuer does not answer, known keys count until they are KEYS_AGE_S old.
    """

    def __init__(self, source: JwksSource, algorithms: frozenset[str]) -> None:
        self._source = source
        self._algorithms = algorithms
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failed = False
        self._lock = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    async def get(self, key_id: str) -> jwt.PyJWK:
        """Return a key; raises NotAuthenticated if it is unknown, TlimError(UNAVAILABLE) while we cannot find out."""
        if key_id not in self._keys or self._age() >= KEYS_AGE_S:
            await self._refresh()
        else:
            self._refresh_soon()
        key = self._keys.get(key_id)
        if key is not None and self._age() < KEYS_AGE_S:
            return key
        if self._failed:
            raise TlimError(ErrorCode.UNAVAILABLE, "token keys are not available, try again")
        raise NotAuthenticated("the token's key is not known")

    async def ping(self) -> None:
        """Return when there are keys, also old ones; raises LookupError before the first were fetched.

        A process without keys is new: others have them, and take its requests. Keys that are too old are so in all
        processes. If all were unready then, people with tokens of other issuers would get nothing: see `warning`.
        """
        refreshing = self._refresh_soon()
        if refreshing is not None and not self._keys:
            await asyncio.wait([refreshing])  # whoever asks may give up earlier: the fetch goes on
        if not self._keys:
            raise LookupError("there are no keys of tokens yet")

    def warning(self) -> str | None:
        """Return a sentence while the keys are too old to be used."""
        if self._keys and self._age() >= KEYS_AGE_S:
            return f"the keys of tokens could not be fetched for {self._age() / 60:.0f} minutes"
        return None

    def _refresh_soon(self) -> asyncio.Task[None] | None:
        """Begin to fetch the keys, if there are none or half their time is over. Return the fetch that goes on."""
        is_due = not self._keys or self._age() >= KEYS_AGE_S / 2
        if is_due and self._may_ask() and not self._is_refreshing():
            self._refreshing = self._tasks.start(self._refresh(), "token keys")
        return self._refreshing if self._is_refreshing() else None

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    def _is_refreshing(self) -> bool:
        return self._refreshing is not None and not self._refreshing.done()

    async def _refresh(self) -> None:
        async with self._lock:
            if not self._may_ask():  # somebody else did while we waited
                return
            self._tried_at = time.monotonic()
            try:
                self._keys = _read_keys(await self._source(), self._algorithms)
            except Exception as error:  # noqa: BLE001 - whatever it is, the keys are not available
                self._failed = True
                logger.warning("token keys could not be fetched", reason=str(error) or type(error).__name__)
            else:
                self._failed = False
                self._fetched_at = self._tried_at

    def _may_ask(self) -> bool:
        return time.monotonic() - self._tried_at >= (RETRY_AFTER_S if self._failed else REFETCH_AFTER_S)


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer whose tokens we accept, and the parts of a token that count.

    `algorithms`: a token signed with another algorithm is refused, whatever its key. `user_claim`: the claim that
    names the user. `admin_scope`: the scope that means `admin` here, None if the issuer can name no admins.
    `scopes_count`: scopes mean the same as here; then `admin_scope` is not looked at.
    """

    name: str
    audience: str
    algorithms: frozenset[str]
    keys: KeySet
    user_claim: str = "sub"
    admin_scope: str | None = None
    scopes_count: bool = False

    @classmethod
    def own(cls, source: JwksSource, name: str, audience: str) -> "Issuer":
        """Return our own issuer, xmpp-bridge."""
        algorithms = frozenset({"EdDSA"})
        return cls(name, audience, algorithms, KeySet(source, algorithms), scopes_count=True)

    @classmethod
    def external(cls, settings: ExternalIssuer) -> "Issuer":
        """Return an issuer that the settings name."""
        algorithms = frozenset[str](settings.algorithms)
        keys = KeySet(http_jwks(str(settings.jwks_url), outside=True), algorithms)
        return cls(settings.issuer, settings.audience, algorithms, keys, settings.user_claim, settings.admin_scope)


def _read_keys(jwks: Mapping[str, Any], algorithms: frozenset[str]) -> dict[str, jwt.PyJWK]:
    """Return, by id, the keys that we can use: for signatures with an allowed algorithm. Other keys are ignored."""
    keys: dict[str, jwt.PyJWK] = {}
    for one in jwks["keys"]:
        try:
            key = jwt.PyJWK(one)
        except jwt.PyJWTError:
            continue
        if key.key_id is not None and key.public_key_use in {None, "sig"} and key.algorithm_name in algorithms:
            keys[key.key_id] = key
    return keys

"""Who is calling: bearer tokens (JWT, EdDSA) checked against a JWKS, and the dependencies that ask for them."""

import asyncio
import json
import time
from asyncio import Lock
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.request import ProxyHandler, build_opener

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import normalize_user_id

from tlim_runtime.errors import NotAuthenticated
from tlim_runtime.logging import get_logger
from tlim_runtime.settings import ServiceSettings

logger = get_logger(__name__)

ADMIN_SCOPE = "admin"

REFETCH_AFTER_S = 10.0
"""An unknown key id may be a fresh key, or somebody's nonsense: ask the issuer at most this often."""

KEYS_AGE_S = 3600.0
"""A withdrawn key stops working within this time: as long as a token lives by default."""

_DIRECT = build_opener(ProxyHandler({}))  # the issuer is inside; a proxy for the way out would not find it
_FETCH_TIMEOUT_S = 3.0
_ALGORITHMS = ["EdDSA"]
_LEEWAY_S = 5  # clocks of two servers differ a little

JwksSource = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns a JWK set (RFC 7517) or raises; any exception counts as 'keys unavailable'."""


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """An authenticated caller: normalised user id and what the token allows besides being him."""

    user_id: str
    scopes: frozenset[str] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether this is server-to-server access (`scope: admin`)."""
        return ADMIN_SCOPE in self.scopes


def http_jwks(url: str) -> JwksSource:
    """Return a source that fetches the JWK set at `url`."""

    def fetch() -> Mapping[str, Any]:
        # In a thread, a few times a day: an asynchronous HTTP client would cost every service 5 MiB for this alone.
        with _DIRECT.open(url, timeout=_FETCH_TIMEOUT_S) as answer:
            keys: Mapping[str, Any] = json.load(answer)
        return keys

    async def fetch_in_thread() -> Mapping[str, Any]:
        return await asyncio.to_thread(fetch)

    return fetch_in_thread


class TokenVerifier:
    """Checks tokens of one issuer; fetches its keys when first needed and keeps them."""

    def __init__(self, jwks: JwksSource, issuer: str, audience: str) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._lock = Lock()

    async def verify(self, token: str) -> CurrentUser:
        """Return whom the token names; raises NotAuthenticated, TlimError(UNAVAILABLE) without keys to check it."""
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError:
            raise NotAuthenticated("the token is not a JWT") from None
        key = await self._key(str(key_id))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_S,
                options={"require": ["sub", "iss", "aud", "exp", "iat"]},
            )
            user_id = normalize_user_id(claims["sub"])
        except jwt.ExpiredSignatureError:
            raise NotAuthenticated("the token has expired") from None
        except (jwt.InvalidTokenError, TlimError):
            raise NotAuthenticated("the token is not valid here") from None
        return CurrentUser(user_id, frozenset(str(claims.get("scope", "")).split()))

    async def _key(self, key_id: str) -> jwt.PyJWK:
        await self._refresh(key_id)
        try:
            return self._keys[key_id]
        except KeyError:
            raise NotAuthenticated("the token's key is not known") from None

    async def _refresh(self, key_id: str) -> None:
        if self._is_fresh(key_id):
            return
        async with self._lock:
            if self._is_fresh(key_id):  # somebody else fetched while we waited
                return
            self._tried_at = time.monotonic()
            try:
                self._keys = _read_keys(await self._jwks())
                self._fetched_at = time.monotonic()
            except Exception as error:
                logger.warning("token keys could not be fetched", reason=str(error) or type(error).__name__)
                self._tried_at = float("-inf") if not self._keys else self._tried_at
                if key_id not in self._keys:
                    raise TlimError(ErrorCode.UNAVAILABLE, "token keys are not available, try again") from error

    def _is_fresh(self, key_id: str) -> bool:
        now = time.monotonic()
        if now - self._tried_at < REFETCH_AFTER_S:
            return True
        return key_id in self._keys and now - self._fetched_at < KEYS_AGE_S


def _read_keys(jwks: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    return {key.key_id: key for key in jwt.PyJWKSet.from_dict(dict(jwks)).keys if key.key_id is not None}


bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="POST /v1/tokens gives one")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def current_user(request: Request, credentials: Credentials) -> CurrentUser:
    """Dependency: the caller of a modern endpoint; 401 without a valid token. Needs `app.state.tokens`."""
    if credentials is None:
        raise NotAuthenticated("a bearer token is needed")
    verifier: TokenVerifier = request.app.state.tokens
    return await verifier.verify(credentials.credentials)


async def admin_user(user: Annotated[CurrentUser, Depends(current_user)]) -> CurrentUser:
    """Dependency: a caller whose token has the scope `admin`; 403 otherwise."""
    if not user.is_admin:
        raise TlimError(ErrorCode.NOT_ALLOWED, "this needs a token with scope admin")
    return user


async def token_user(request: Request, credentials: Credentials) -> CurrentUser | None:
    """Dependency of the specification's endpoints: the token's user, None without any token; see `caller`."""
    return None if credentials is None else await current_user(request, credentials)


def caller(token_holder: CurrentUser | None, named: str | None, settings: ServiceSettings) -> CurrentUser:
    """Return who calls an endpoint of the specification: the token's user, else, if that is trusted, the one named.

    `named` is what the request says (`request_user`, `session_user`, `user_id`); it counts only without a token and
    only under TLIM_TRUST_REQUEST_USER, and never gives a scope. Raises NotAuthenticated, or TlimError(FIELD_INVALID)
    for a name that is no user id.
    """
    if token_holder is not None:
        return token_holder
    if settings.trust_request_user and named:
        return CurrentUser(normalize_user_id(named))
    raise NotAuthenticated("a bearer token is needed")


def warn_if_users_are_trusted(settings: ServiceSettings) -> None:
    """Say loudly at start that callers without a token can name any user."""
    if settings.trust_request_user:
        logger.warning(
            "TLIM_TRUST_REQUEST_USER is on: whoever reaches the specification's endpoints can act as any user",
            service=settings.service,
        )

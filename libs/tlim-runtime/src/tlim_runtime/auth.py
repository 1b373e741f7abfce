"""The caller of a request: checks bearer tokens (JWT) against their issuer's keys, and gives FastAPI dependencies."""

import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Self

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import normalize_user_id

from tlim_runtime.bodies import BoundedRoute
from tlim_runtime.errors import NotAuthenticated, problem_responses
from tlim_runtime.health import Health
from tlim_runtime.issuers import Issuer, JwksSource, http_jwks
from tlim_runtime.logging import get_logger
from tlim_runtime.proven import LEEWAY_S, ProvenToken, ProvenTokens, time_of
from tlim_runtime.settings import ExternalIssuer, ServiceSettings

logger = get_logger(__name__)

ADMIN_SCOPE = "admin"

_JWT = jwt.PyJWT({"enforce_minimum_key_length": True})  # an RSA key below 2048 bits proves nothing


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """An authenticated caller: their normalised user id, and the scopes of their token."""

    user_id: str
    scopes: frozenset[str] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether this is server-to-server access (`scope: admin`)."""
        return ADMIN_SCOPE in self.scopes


class TokenVerifier:
    """Checks tokens of our own issuer and of the external issuers in the settings."""

    def __init__(self, jwks: JwksSource, issuer: str, audience: str, external: Sequence[ExternalIssuer] = ()) -> None:
        own = Issuer.own(jwks, issuer, audience)
        self._own_keys = own.keys
        self._issuers = {one.name: one for one in (own, *map(Issuer.external, external))}
        self._deactivated: frozenset[str] | None = None  # nobody has told us yet
        self._proven = ProvenTokens()

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """Return the verifier that a service's settings describe."""
        source = http_jwks(settings.jwks_url)
        return cls(source, settings.token_issuer, settings.token_audience, settings.external_issuers)

    def refuse(self, users: Iterable[str]) -> None:
        """Refuse the tokens of these users from now on, and of no others."""
        self._deactivated = frozenset(users)

    @property
    def knows_whom_to_refuse(self) -> bool:
        """Whether it was ever told. Until then no token can be verified."""
        return self._deactivated is not None

    def is_refused(self, user_id: str) -> bool:
        """Return whether the tokens of this user are refused; False while we do not know."""
        return self._deactivated is not None and user_id in self._deactivated

    def looked_after(self, health: Health) -> None:
        """Have readiness wait for the keys of our own tokens, and warn when they are too old.

        An external issuer that is away makes nobody unready: all others can work.
        """
        health.add("token keys", self._own_keys.ping)
        health.warn("token keys", self._own_keys.warning)

    async def verify(self, token: str) -> CurrentUser:
        """Return the user of a token.

        Raises NotAuthenticated. Raises TlimError(UNAVAILABLE) without keys to check it, and before we know who is
        deactivated. The signature of a token is not checked each time (proven.py). Whatever may change is: the time,
        the issuer's keys, and who is deactivated.
        """
        proven = self._proven.find(token)
        if proven is None or not proven.counts_with(await self._issuers[proven.issuer].keys.get(proven.key_id)):
            proven = await self._prove(token)
            self._proven.keep(token, proven)
        if not self.knows_whom_to_refuse:
            raise TlimError(ErrorCode.UNAVAILABLE, "who is deactivated is not known yet, try again")
        if self.is_refused(proven.user_id):
            raise NotAuthenticated("your account is deactivated")
        return CurrentUser(proven.user_id, proven.scopes)

    async def _prove(self, token: str) -> ProvenToken:
        """Check all of a token but its user's account; raises what `verify` raises."""
        issuer, header = self._announced(token)
        key_id = str(header.get("kid"))
        key = await issuer.keys.get(key_id)
        if header["alg"] != key.algorithm_name:
            raise NotAuthenticated("the token is not valid here")
        try:
            claims = _JWT.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # the key's, never the token's choice
                issuer=issuer.name,
                audience=issuer.audience,
                leeway=LEEWAY_S,
                options={"require": [issuer.user_claim, "iss", "aud", "exp", "iat"]},
            )
            user_id = _user_named_by(claims[issuer.user_claim])
        except jwt.ExpiredSignatureError:
            raise NotAuthenticated("the token has expired") from None
        except (jwt.PyJWTError, TlimError):
            raise NotAuthenticated("the token is not valid here") from None
        begins, ends = time_of(claims)
        return ProvenToken(issuer.name, key_id, key, begins, ends, user_id, _scopes_here(issuer, claims))

    def _announced(self, token: str) -> tuple[Issuer, dict[str, Any]]:
        """Return the issuer that the token claims, and the token's header. Neither is proved yet."""
        try:
            header = jwt.get_unverified_header(token)
            name = _JWT.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            raise NotAuthenticated("the token is not a JWT") from None
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        algorithm = header.get("alg")
        # Checked here, so that such a token makes us ask nobody for keys.
        if issuer is None or not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            raise NotAuthenticated("the token is not valid here")
        return issuer, header


def _user_named_by(claim: object) -> str:
    """Return the user id in a claim; raises InvalidTokenError or TlimError for a claim that is none.

    Only upper case is converted. `ＡＬＩＣＥ`, `al\u00adice` and `𝐚𝐥𝐢𝐜𝐞` also have the normal form `alice`. They are
    refused, because they may be other people's names at the issuer.
    """
    if not isinstance(claim, str):
        raise jwt.InvalidTokenError("the claim that names the user is not a string")
    user_id = normalize_user_id(claim)
    # NFKC is checked as well, because the lower case of the Kelvin sign is an ASCII k.
    if claim.lower() != user_id or not unicodedata.is_normalized("NFKC", claim):
        raise jwt.InvalidTokenError("the claim that names the user is not in its normal form")
    return user_id


def _scopes_here(issuer: Issuer, claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes that count here. External issuers name scopes as they like, so only `admin_scope` counts."""
    said = claims.get("scope") or claims.get("scp") or ()  # RFC 9068; Microsoft's name, there a list or a string
    scopes = frozenset(said.split() if isinstance(said, str) else map(str, said if isinstance(said, list) else ()))
    if issuer.scopes_count:
        return scopes
    return frozenset({ADMIN_SCOPE}) if issuer.admin_scope in scopes else frozenset()


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


class TokenFirstRoute(BoundedRoute):
    """A route that reads the body only for a valid token: `APIRouter(route_class=TokenFirstRoute)`.

    FastAPI itself reads and parses a body before it looks at any dependency. The dependencies of the route look at the
    token a second time. The bodies of one user take turns: otherwise a user with many slow ones could fill the memory.
    Needs `app.state.tokens` and `app.state.bodies` (Turns).
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(path, endpoint, **options)
        if self.body_field is not None:
            self.responses = {**problem_responses(ErrorCode.TOO_MANY_REQUESTS), **self.responses}

    @asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[None]:
        """Hold the caller's turn. Raises NotAuthenticated without a valid token, and TooManyRequests."""
        user = await current_user(request, await bearer(request))
        async with request.app.state.bodies.one(user.user_id):
            yield


async def token_user(request: Request, credentials: Credentials) -> CurrentUser | None:
    """Dependency of the specification's endpoints: the token's user, or None without a token; see `caller`."""
    return None if credentials is None else await current_user(request, credentials)


def caller(token_holder: CurrentUser | None, named: str | None, settings: ServiceSettings) -> CurrentUser:
    """Return the caller of an endpoint of the specification: the token's user, or the user that the request names.

    `named` is the name in the request (`request_user`, `session_user` or `user_id`). It counts only without a token,
    and only if TLIM_TRUST_REQUEST_USER is on. It never gives a scope. Raises NotAuthenticated, or
    TlimError(FIELD_INVALID) for a name that is no user id.
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

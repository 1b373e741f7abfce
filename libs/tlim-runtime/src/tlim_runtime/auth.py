"""Who is calling: bearer tokens (JWT) checked against their issuer's keys, and the dependencies that ask for them."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import jwt
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import normalize_user_id

from tlim_runtime.bodies import BoundedRoute
from tlim_runtime.errors import NotAuthenticated
from tlim_runtime.issuers import Issuer, JwksSource, http_jwks
from tlim_runtime.logging import get_logger
from tlim_runtime.settings import ExternalIssuer, ServiceSettings

logger = get_logger(__name__)

ADMIN_SCOPE = "admin"

_LEEWAY_S = 60  # so far may the clocks of an issuer and of a service differ: hosts without NTP drift by seconds a day
_JWT = jwt.PyJWT({"enforce_minimum_key_length": True})  # an RSA key below 2048 bits proves nothing


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """An authenticated caller: normalised user id and what the token allows besides being him."""

    user_id: str
    scopes: frozenset[str] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether this is server-to-server access (`scope: admin`)."""
        return ADMIN_SCOPE in self.scopes


class TokenVerifier:
    """Checks tokens of our own issuer and of those that the settings name besides."""

    def __init__(self, jwks: JwksSource, issuer: str, audience: str, external: Sequence[ExternalIssuer] = ()) -> None:
        issuers = (Issuer.own(jwks, issuer, audience), *map(Issuer.external, external))
        self._issuers = {one.name: one for one in issuers}

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """Return the verifier that a service's settings describe."""
        source = http_jwks(settings.jwks_url)
        return cls(source, settings.token_issuer, settings.token_audience, settings.external_issuers)

    async def verify(self, token: str) -> CurrentUser:
        """Return whom the token names; raises NotAuthenticated, TlimError(UNAVAILABLE) without keys to check it."""
        issuer, header = self._announced(token)
        key = await issuer.keys.get(str(header.get("kid")))
        if header["alg"] != key.algorithm_name:
            raise NotAuthenticated("the token is not valid here")
        try:
            claims = _JWT.decode(
                token,
                key,
                algorithms=[key.algorithm_name],  # the key's, never the token's choice
                issuer=issuer.name,
                audience=issuer.audience,
                leeway=_LEEWAY_S,
                options={"require": [issuer.user_claim, "iss", "aud", "exp", "iat"]},
            )
            user_id = _user_named_by(claims[issuer.user_claim])
        except jwt.ExpiredSignatureError:
            raise NotAuthenticated("the token has expired") from None
        except (jwt.PyJWTError, TlimError):
            raise NotAuthenticated("the token is not valid here") from None
        return CurrentUser(user_id, _scopes_here(issuer, claims))

    def _announced(self, token: str) -> tuple[Issuer, dict[str, Any]]:
        """Return the issuer that the token says it is from, not yet proved, and its header."""
        try:
            header = jwt.get_unverified_header(token)
            name = _JWT.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            raise NotAuthenticated("the token is not a JWT") from None
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        algorithm = header.get("alg")
        # before asking anybody for keys
        if issuer is None or not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            raise NotAuthenticated("the token is not valid here")
        return issuer, header


def _user_named_by(claim: object) -> str:
    """Return the user id in a claim; raises InvalidTokenError or TlimError for one that only comes to be it.

    Upper case is taken for lower case and nothing else: `ＡＬＩＣＥ`, `al\u00adice` and `𝐚𝐥𝐢𝐜𝐞` have the normal form
    `alice` here, and may be other people's names at the issuer.
    """
    if not isinstance(claim, str):
        raise jwt.InvalidTokenError("the claim that names the user is not a string")
    user_id = normalize_user_id(claim)
    # the second half: the Kelvin sign's lower case is an ASCII k
    if claim.lower() != user_id or not unicodedata.is_normalized("NFKC", claim):
        raise jwt.InvalidTokenError("the claim that names the user is not in its normal form")
    return user_id


def _scopes_here(issuer: Issuer, claims: Mapping[str, Any]) -> frozenset[str]:
    """Return what the token allows here. Others name scopes as they like: theirs count only as the settings say."""
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
    """A route whose body is read for callers with a valid token only: `APIRouter(route_class=TokenFirstRoute)`.

    FastAPI reads and parses a body before it looks at any dependency. A valid token is checked again where the route
    asks for it.
    """

    async def before_body(self, request: Request) -> None:
        """Raise NotAuthenticated without a valid token."""
        await current_user(request, await bearer(request))


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

"""HTTP doors: a token for a password, and the keys that verify tokens."""

from fastapi import APIRouter, Response
from tlim_protocol.errors import ErrorCode
from tlim_runtime.bodies import BoundedRoute
from tlim_runtime.errors import problem_responses

from xmpp_bridge.dependencies import ClientAddress, TokenDeskDep, TokenIssuerDep
from xmpp_bridge.schemas import KeySetAnswer, TokenAnswer, TokenRequest

MAX_BODY_BYTES = 16 * 1024
"""The largest body of a login: a name and a password. It is small, because anybody may send it without a token."""

router = APIRouter(tags=["tokens"], route_class=BoundedRoute, max_body_size=MAX_BODY_BYTES)

_KEYS_MAX_AGE = "public, max-age=300"  # how long a new key should be published before it signs


@router.post(
    "/v1/tokens",
    responses=problem_responses(
        ErrorCode.NOT_ALLOWED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.TOO_MANY_REQUESTS,
        ErrorCode.FIELD_INVALID,
        ErrorCode.JSON_INVALID,
        statuses=(401, 413),
    ),
)
async def create_token(
    body: TokenRequest, desk: TokenDeskDep, address: ClientAddress, response: Response
) -> TokenAnswer:
    """Log in at the XMPP server and get a bearer token for the HTTP API."""
    token = await desk.issue(body.username, body.password.get_secret_value(), address)
    response.headers["Cache-Control"] = "no-store"  # RFC 6750 section 5.3
    return TokenAnswer(access_token=token.access_token, expires_in=int(token.lifetime.total_seconds()))


@router.get("/.well-known/jwks.json")
async def get_keys(issuer: TokenIssuerDep, response: Response) -> KeySetAnswer:
    """List the public keys of all tokens that may still be valid."""
    response.headers["Cache-Control"] = _KEYS_MAX_AGE
    return KeySetAnswer(keys=issuer.jwks()["keys"])

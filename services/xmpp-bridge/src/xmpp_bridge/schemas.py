"""HTTP shapes of the token endpoints."""

from typing import Literal

from pydantic import BaseModel, Field, SecretStr

_SCHEME: Literal["Bearer"] = "Bearer"


class TokenRequest(BaseModel):
    """An XMPP account: `username` is the part before the @."""

    username: str = Field(min_length=1, max_length=256)
    password: SecretStr = Field(max_length=1024)


class TokenAnswer(BaseModel):
    """The answer of RFC 6750, section 4."""

    access_token: str
    token_type: Literal["Bearer"] = _SCHEME
    expires_in: int  # seconds


class KeySet(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str]]

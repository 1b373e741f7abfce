"""HTTP shapes: tokens, keys, and messages of system users."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, WithJsonSchema
from tlim_protocol.events import StoredMessage

from xmpp_bridge.system_service import Draft

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


class KeySetAnswer(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, str]]


Body = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "object"}, "minItems": 1})]
"""A body is checked like a client's body, and refused with the same codes."""


class SystemMessage(BaseModel):
    """A message in the name of a system user, to the user `to` or to the session `session_id`."""

    model_config = ConfigDict(populate_by_name=True)

    msg_from: str = Field(alias="from", description="one of TLIM_SYSTEM_USERS")
    to: str | None = Field(default=None, description="the receiver of a 1:1 message")
    session_id: str | None = Field(
        default=None,
        description="put into every element of `body` that names none; an element that names another one is refused",
    )
    msg_type: str | None = Field(default=None, description="a type that clients send, such as MTT-000")
    body: Body = Field(default=None, description="the elements that the message type wants")
    msg_id: str | None = Field(
        default=None, description="made up when missing; for one message, which may be sent again"
    )

    def draft(self) -> Draft:
        """Return it in the service's words."""
        return Draft(self.msg_from, self.to, self.session_id, self.msg_type, self.body, self.msg_id)


class SentMessage(BaseModel):
    """Where a message is in the record."""

    msg_id: str
    seq: int
    stored_at: str = Field(description="epoch milliseconds on the server's clock")

    @classmethod
    def of(cls, stored: StoredMessage) -> Self:
        """Return the shape of a stored message."""
        return cls(msg_id=stored.envelope.msg_id, seq=stored.seq, stored_at=str(stored.stored_at))

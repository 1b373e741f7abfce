"""The errors of a client. The text of each is one sentence that a person can act on."""

from tlim_protocol.errors import ErrorCode


class ClientError(Exception):
    """The base of all errors that this library raises on purpose. The text is one line for a person."""


class NotReachableError(ClientError):
    """The server does not answer, or it broke the connection."""


class LoginRefusedError(ClientError):
    """The server does not accept this user with this password."""


class NotReceivedError(ClientError):
    """The expected event did not arrive in time."""


class ProfileError(ClientError):
    """The command does not know which user to act for: nobody is logged in, or several users are."""


class RefusedError(ClientError):
    """The server refused with a documented code (docs/protocol.md, "Error codes"); `status` is set for HTTP only.

    `code` is None when something in front of the services answered, for example a gateway.
    """

    def __init__(
        self, code: ErrorCode | None, detail: str, *, field: str | None = None, status: int | None = None
    ) -> None:
        label = code.value if code else f"HTTP {status}"
        super().__init__(f"{label}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.status = status

"""What can go wrong for a client, each said in one sentence that a person can act on."""

from tlim_protocol.errors import ErrorCode


class ClientError(Exception):
    """The base of everything this library raises on purpose; its text is one line for a person."""


class NotReachableError(ClientError):
    """The server does not answer, or broke the connection."""


class LoginRefusedError(ClientError):
    """The server does not accept this user with this password."""


class NotReceivedError(ClientError):
    """What was waited for did not arrive in time."""


class ProfileError(ClientError):
    """The command does not know who it should be: nobody, or several people, are logged in."""


class RefusedError(ClientError):
    """The server refused with a documented code (docs/protocol.md, "Error codes"); `status` is set for HTTP only.

    `code` is None where something in front of the services answered, a gateway for example.
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

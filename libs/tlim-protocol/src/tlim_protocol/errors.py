"""The closed, append-only registry of error codes, and the one exception that carries them."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class ErrorCode(StrEnum):
    """Every code a client can see (specification section 4; from error-008 on: this project)."""

    BODY_EMPTY = "error-000"
    MSG_TYPE_INVALID = "error-001"
    SESSION_TYPE_INVALID = "error-002"
    SESSION_NAME_EMPTY = "error-003"
    SESSION_USER_UNKNOWN = "error-004"
    JSON_INVALID = "error-005"
    NOT_AN_ARRAY = "error-006"
    SESSION_ID_EMPTY = "error-007"
    USER_UNKNOWN = "error-008"
    SESSION_UNKNOWN = "error-009"
    UNAVAILABLE = "error-010"
    NOT_ALLOWED = "error-011"
    FROM_NOT_SENDER = "error-012"
    FILE_UNKNOWN = "error-013"
    MSG_ID_UNKNOWN = "error-014"
    RECALL_TOO_LATE = "error-015"
    FIELD_INVALID = "error-016"
    TOO_MANY_REQUESTS = "error-017"
    UNSUPPORTED = "error-018"


class ErrorEntry(NamedTuple):
    """One row of the error table: what a code means and when it is answered."""

    meaning: str
    when: str


ERRORS: Mapping[ErrorCode, ErrorEntry] = MappingProxyType(
    {
        ErrorCode.BODY_EMPTY: ErrorEntry(
            "body empty or invalid",
            "no `<body>`; `body` missing or `[]`; a text element without a non-empty `text`",
        ),
        ErrorCode.MSG_TYPE_INVALID: ErrorEntry(
            "msg_type empty or invalid",
            "missing, unknown, or a type that is not sent over XMPP (HTS-*, HFO-*)",
        ),
        ErrorCode.SESSION_TYPE_INVALID: ErrorEntry(
            "session_type empty or invalid", "addSession: missing or not an integer ≥ 0"
        ),
        ErrorCode.SESSION_NAME_EMPTY: ErrorEntry(
            "session_name empty",
            "`session_name` is given, but it shows nothing, or it changes the direction of text",
        ),
        ErrorCode.SESSION_USER_UNKNOWN: ErrorEntry(
            "session_user empty or unknown", "addSession: creator missing or unknown; no known subscriber left"
        ),
        ErrorCode.JSON_INVALID: ErrorEntry(
            "JSON does not parse", "envelope not JSON or not an object; `subscribers` not JSON"
        ),
        ErrorCode.NOT_AN_ARRAY: ErrorEntry("not a valid array", "`body` or `subscribers` is not an array of objects"),
        ErrorCode.SESSION_ID_EMPTY: ErrorEntry(
            "session_id empty", "missing in a group element, in modify or delete; or the elements of a message disagree"
        ),
        ErrorCode.USER_UNKNOWN: ErrorEntry(
            "user_id empty or unknown", "`to` missing or unknown in a 1:1 message; a subscriber id blank"
        ),
        ErrorCode.SESSION_UNKNOWN: ErrorEntry(
            "session does not exist",
            "unknown or deleted; over HTTP also for a user who is not in it",
        ),
        ErrorCode.UNAVAILABLE: ErrorEntry(
            "server could not process it, try again", "a dependency is down; nothing was stored"
        ),
        ErrorCode.NOT_ALLOWED: ErrorEntry(
            "not allowed",
            "sender not a subscriber, or deactivated; editing a foreign session; recalling somebody else's message",
        ),
        ErrorCode.FROM_NOT_SENDER: ErrorEntry(
            "from is not the sender", "the envelope's `from` differs from the authenticated user"
        ),
        ErrorCode.FILE_UNKNOWN: ErrorEntry(
            "file_id empty, unknown or not yours", "a file that was not uploaded by, or shared with, the sender"
        ),
        ErrorCode.MSG_ID_UNKNOWN: ErrorEntry(
            "msg_id empty or unknown", "a receipt or recall that names no message of that conversation"
        ),
        ErrorCode.RECALL_TOO_LATE: ErrorEntry(
            "recall window has passed", "measured on the server's clock; the limit itself still counts as inside"
        ),
        ErrorCode.FIELD_INVALID: ErrorEntry(
            "a field is missing, of the wrong type, or too long",
            "the answer names the field; also a `body` of more than 1,000 elements or 10,000 values, and a msg_id that"
            " the sender gave to another message",
        ),
        ErrorCode.TOO_MANY_REQUESTS: ErrorEntry(
            "too many requests", "the per-user rate limit; the answer says in how many seconds it would pass"
        ),
        ErrorCode.UNSUPPORTED: ErrorEntry(
            "unsupported compress, encode or encrypt", "a value other than those of the envelope table"
        ),
    }
)


class TlimError(Exception):
    """A refusal with its documented code; the base of every refusal in every service.

    `detail` is a sentence for a person, `field` names the field at fault, `msg_id` the message where one was read.
    """

    def __init__(self, code: ErrorCode, detail: str, *, field: str | None = None, msg_id: str | None = None) -> None:
        super().__init__(f"{code.value}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.msg_id = msg_id


def quoted(value: object) -> str:
    """Return `value` as a short quoted excerpt that is safe in logs, XML and JSON: at most 64 characters, ASCII."""
    text = value if isinstance(value, str) else repr(value)
    return ascii(text if len(text) <= 64 else text[:61] + "...")

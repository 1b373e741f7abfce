"""The JSON envelope of every tlim message (specification sections 1 and 2): lenient reading, strict writing."""

from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from tlim_protocol.body import Body, Charge, check_elements, free_of_charge, read_body
from tlim_protocol.characters import is_plain_text, shows_something
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.identity import MAX_ID, conversation_of_users, normalize_user_id
from tlim_protocol.lenient import read_json, write_json
from tlim_protocol.registry import CLIENT_TYPES, REGISTRY, MsgType

MAX_STANZA_BYTES = 256 * 1024
"""The largest stanza. It is what the common XMPP servers accept from clients by default."""

DEFAULT_VERSION = "2.0.0"

_MAX_LENGTH = {
    "compress": 20, "encode": 20, "encrypt": 50, "version": 10, "msg_id": MAX_ID, "msg_time": 20, "from": MAX_ID,
    "to": MAX_ID,
}  # fmt: skip
_SUPPORTED = {"compress": {"0", "none", "1"}, "encode": {"1"}, "encrypt": {"0", "plain"}}
_PLAIN = {"compress": "0", "encode": "1", "encrypt": "0"}


class Envelope(BaseModel):
    """A message that passed every check that needs no I/O. Its body is unpacked, and its user ids are normalised."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    compress: str = "0"
    encode: str = "1"
    encrypt: str = "0"
    version: str = DEFAULT_VERSION
    msg_from: str = Field(alias="from")
    msg_to: str | None = Field(default=None, alias="to")
    msg_id: str
    msg_type: MsgType
    msg_time: str | None = None
    body: Body

    @property
    def session_id(self) -> str | None:
        """The session of the message, or None in a 1:1 conversation. All elements name the same session."""
        return self.body[0].get("session_id") if REGISTRY[self.msg_type].names_session else None

    @property
    def file_ids(self) -> list[str]:
        """The ids of the files that the message shares, in order, without repetition; empty for other types."""
        if not REGISTRY[self.msg_type].carries_file:
            return []
        return list(dict.fromkeys(element["file_id"] for element in self.body))

    @property
    def conversation_id(self) -> str:
        """The session's id, or `u:<smaller>:<larger>` between two people. It decides the shard, and so the order."""
        return self.session_id or conversation_of_users(self.msg_from, self.msg_to or self.msg_from)


def read_envelope(text: str | None, sender: str, charge: Charge = free_of_charge) -> Envelope:
    """Return the envelope in a stanza's `<body>`. `sender` is the authenticated sender, a normalised user id.

    For a compressed body, `charge` is called with the unpacked size before the body is read.

    Raises TlimError with the code of the first check that fails (docs/wire-protocol.md, "Order of checks"): empty
    (BODY_EMPTY), parse (JSON_INVALID), msg_type, field types and sizes (FIELD_INVALID), compress/encode/encrypt
    (UNSUPPORTED), sender (FROM_NOT_SENDER), body (BODY_EMPTY, NOT_AN_ARRAY), element fields, receiver (USER_UNKNOWN).
    It raises nothing else, except what `charge` raises.
    """
    if text is None or not text.strip():
        raise TlimError(ErrorCode.BODY_EMPTY, "the stanza has no body", field="body")
    if len(text) > MAX_STANZA_BYTES or len(text.encode(errors="surrogatepass")) > MAX_STANZA_BYTES:
        raise TlimError(ErrorCode.FIELD_INVALID, f"the message is over {MAX_STANZA_BYTES} bytes", field="body")
    raw = read_json(text)
    if not isinstance(raw, dict):
        raise TlimError(ErrorCode.JSON_INVALID, "the envelope is not a JSON object")
    try:
        return _check(raw, sender, charge)
    except TlimError as error:
        error.msg_id = _readable_id(raw.get("msg_id"))
        raise


def write_envelope(envelope: Envelope) -> str:
    """Return strict JSON with the specification's names. All its characters may stand in an XML text node."""
    return write_json(envelope.model_dump(by_alias=True, exclude_none=True))


def _check(raw: dict[str, Any], sender: str, charge: Charge) -> Envelope:
    msg_type = _read_type(raw.get("msg_type"))
    fields = _read_fields(raw)
    for name, supported in _SUPPORTED.items():
        if fields.get(name, _PLAIN[name]) not in supported:
            raise TlimError(ErrorCode.UNSUPPORTED, f"{name} {quoted(fields[name])} is not supported", field=name)
    _check_sender(fields["from"], sender)
    body = read_body(raw.get("body"), compressed=fields.get("compress") == "1", charge=charge)
    check_elements(msg_type, body)
    in_session = REGISTRY[msg_type].names_session and body[0].get("session_id") is not None
    return Envelope(
        version=fields.get("version") or DEFAULT_VERSION,
        msg_from=sender,
        msg_to=fields.get("to") if in_session else _read_receiver(fields.get("to")),
        msg_id=fields["msg_id"],
        msg_type=msg_type,
        msg_time=fields.get("msg_time"),
        body=body,
    )


def _read_type(value: object) -> MsgType:
    if isinstance(value, str) and value in CLIENT_TYPES:
        return MsgType(value)
    sentence = "is sent by the server only" if value in list(MsgType) else "is not a known type"
    detail = "msg_type is missing" if value is None else f"msg_type {quoted(value)} {sentence}"
    raise TlimError(ErrorCode.MSG_TYPE_INVALID, detail, field="msg_type")


def _read_fields(raw: dict[str, Any]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, limit in _MAX_LENGTH.items():
        value = raw.get(name)
        if value is None and name in {"from", "to"}:  # null counts as absent, because some clients write both names
            value = raw.get(f"msg_{name}")
        if isinstance(value, str) and len(value) <= limit and value.isprintable():
            fields[name] = value  # as nearly always
        elif value is not None:
            fields[name] = _read_field(name, value, limit)
    for name in ("msg_id", "from"):
        if not fields.get(name):
            _field_invalid(name, "is missing")
    if not shows_something(fields["msg_id"]):
        _field_invalid("msg_id", "is blank")
    msg_time = fields.get("msg_time", "0")
    if not (msg_time.isascii() and msg_time.isdigit()):
        _field_invalid("msg_time", "is not epoch milliseconds in decimal digits")
    return fields


def _read_field(name: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        _field_invalid(name, "is not a string")
    if len(value) > limit:
        _field_invalid(name, f"is longer than {limit} characters")
    if not is_plain_text(value):
        _field_invalid(name, "holds control characters")
    return value


def _check_sender(claimed: str, sender: str) -> None:
    try:
        is_sender = normalize_user_id(claimed) == sender
    except TlimError:
        is_sender = False
    if not is_sender:
        raise TlimError(ErrorCode.FROM_NOT_SENDER, f"from {quoted(claimed)} is not the sender", field="from")


def _read_receiver(to: str | None) -> str:
    if not to:
        raise TlimError(ErrorCode.USER_UNKNOWN, "to is missing", field="to")
    try:
        return normalize_user_id(to)
    except TlimError as error:
        raise TlimError(ErrorCode.USER_UNKNOWN, f"to {quoted(to)} is not a user", field="to") from error


def _field_invalid(name: str, what: str) -> NoReturn:
    raise TlimError(ErrorCode.FIELD_INVALID, f"{name} {what}", field=name)


def _readable_id(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID and is_plain_text(value) else None

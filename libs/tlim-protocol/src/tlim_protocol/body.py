"""The body of an envelope: unpacking, shape, and the fields that each message type's elements must have."""

import base64
import binascii
import zlib
from collections.abc import Callable
from typing import Any, cast

from tlim_protocol.characters import is_plain_text, shows_something
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.identity import MAX_ID
from tlim_protocol.lenient import read_json
from tlim_protocol.registry import REGISTRY, ElementField, MsgType

MAX_UNPACKED_BYTES = 1024 * 1024
"""The largest compressed body, after unpacking. Without it, a stanza of 256 KiB could unpack to almost 200 MiB."""

MAX_ELEMENTS = 1_000
"""The most elements in a body. Each element of a receipt costs two look-ups while the log is locked. Without this
limit, a stanza of 150 KB could hold 45,000 elements, and ten such receipts stopped all messages for ten seconds. A
client with more elements sends several messages."""

Body = list[dict[str, Any]]

Charge = Callable[[int], None]
"""Called with the size in bytes of an unpacked body, before the body is read. It may raise TlimError to refuse it."""


def free_of_charge(_size: int) -> None:
    """Accept a body of any size."""


def read_body(raw: object, *, compressed: bool, charge: Charge = free_of_charge) -> Body:
    """Return the body as a non-empty list of objects, whatever form it came in.

    `raw` is an array, or a string that holds a JSON array. With `compressed` it is the base64 of a zlib stream with
    such a string, at most 1 MiB unpacked. Raises BODY_EMPTY without a body, and NOT_AN_ARRAY for anything but an array
    of objects. Raises FIELD_INVALID if it unpacks to more than 1 MiB, or holds more values than a message may.
    """
    if raw is None or raw in ("", []):
        raise TlimError(ErrorCode.BODY_EMPTY, "body is missing or empty", field="body")
    if compressed:
        raw = _unpack(raw)
        charge(len(raw))
    if isinstance(raw, str | bytes):
        try:
            raw = read_json(raw)
        except TlimError as error:
            if error.code is ErrorCode.FIELD_INVALID:
                raise
            raise _not_an_array("body is a text that holds no JSON array") from error
        if raw == []:
            raise TlimError(ErrorCode.BODY_EMPTY, "body is an empty array", field="body")
    if not isinstance(raw, list) or not all(isinstance(element, dict) for element in raw):
        raise _not_an_array("body is not an array of objects")
    return cast("Body", raw)


def check_elements(msg_type: MsgType, body: Body) -> None:
    """Check every element of `body` against the row of `msg_type` in the registry.

    Raises FIELD_INVALID for more than MAX_ELEMENTS elements, and for an id over 64 characters. Raises the row's own
    code for an empty field: text BODY_EMPTY, file_id FILE_UNKNOWN, msg_id MSG_ID_UNKNOWN, session_id SESSION_ID_EMPTY.
    Raises SESSION_ID_EMPTY when the elements of one message name different sessions.
    """
    if len(body) > MAX_ELEMENTS:
        raise TlimError(ErrorCode.FIELD_INVALID, f"body has more than {MAX_ELEMENTS} elements", field="body")
    kind = REGISTRY[msg_type]
    for element in body:
        for field in kind.element:
            _check_field(field, element)
    if kind.names_session and any(element.get("session_id") != body[0].get("session_id") for element in body):
        raise TlimError(ErrorCode.SESSION_ID_EMPTY, "the elements name different sessions", field="session_id")


def _check_field(field: ElementField, element: dict[str, Any]) -> None:
    value = element.get(field.name)
    if value is None and not field.required:
        return
    if not isinstance(value, str) or not value or (field.bounded and not shows_something(value)):
        raise TlimError(field.code, f"{field.name} is empty or not a string", field=field.name)
    if field.bounded and (len(value) > MAX_ID or not is_plain_text(value)):
        raise TlimError(
            ErrorCode.FIELD_INVALID,
            f"{field.name} {quoted(value)} is not an id of 1 to {MAX_ID} characters",
            field=field.name,
        )


def _unpack(raw: object) -> bytes:
    if not isinstance(raw, str):
        raise _not_an_array("a compressed body is a base64 string")
    unpacker = zlib.decompressobj()
    try:
        packed = base64.b64decode("".join(raw.split()), validate=True)
        unpacked = unpacker.decompress(packed, MAX_UNPACKED_BYTES + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise _not_an_array("a compressed body is base64 of zlib") from error
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise TlimError(ErrorCode.FIELD_INVALID, f"body unpacks to over {MAX_UNPACKED_BYTES} bytes", field="body")
    if not unpacker.eof or unpacker.unused_data:
        raise _not_an_array("the zlib stream of body is cut short or followed by something else")
    return unpacked


def _not_an_array(detail: str) -> TlimError:
    return TlimError(ErrorCode.NOT_AN_ARRAY, detail, field="body")

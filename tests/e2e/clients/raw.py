"""Envelopes as real clients may write them: with any field changed, left out, or of the wrong type."""

import base64
import json
import uuid
import zlib
from typing import Any

from tlim_protocol.registry import MsgType

from tests.e2e.clients.people import Person

LEFT_OUT = object()


def raw_envelope(sender: Person, receiver: Person, **changes: Any) -> str:
    """Return the JSON of a valid text message with some fields changed; `from_` sets `from`, LEFT_OUT omits a field."""
    fields: dict[str, Any] = {
        "compress": "0",
        "encode": "1",
        "encrypt": "0",
        "version": "2.0.0",
        "from": sender.user_id,
        "to": receiver.user_id,
        "msg_id": str(uuid.uuid4()),
        "msg_type": MsgType.TEXT,
        "msg_time": "1599218283837",
        "body": [{"text": "hello"}],
    }
    fields.update({name.rstrip("_"): value for name, value in changes.items()})
    return json.dumps({name: value for name, value in fields.items() if value is not LEFT_OUT}, ensure_ascii=False)


def packed(content: bytes) -> str:
    """Return base64 of zlib, as `compress: "1"` wants it."""
    return base64.b64encode(zlib.compress(content)).decode()

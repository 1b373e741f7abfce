"""Making the envelopes that a client sends."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType


def new_envelope(sender: str, to: str, msg_type: MsgType, *body: Mapping[str, Any]) -> Envelope:
    """Return an envelope with a fresh msg_id and the client's clock in msg_time."""
    return Envelope(
        msg_from=sender,
        msg_to=to,
        msg_id=str(uuid.uuid4()),
        msg_type=msg_type,
        msg_time=str(int(time.time() * 1000)),
        body=[dict(element) for element in body],
    )


def text_message(sender: str, to: str, text: str) -> Envelope:
    """Return a 1:1 text message."""
    return new_envelope(sender, to, MsgType.TEXT, {"text": text})


def file_message(sender: str, to: str, msg_type: MsgType, file_id: str) -> Envelope:
    """Return a 1:1 image, file or voice message that shares an uploaded file with its receiver."""
    return new_envelope(sender, to, msg_type, {"file_id": file_id})

"""Makes the envelopes that a client sends."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

_IN_GROUPS = {
    MsgType.TEXT: MsgType.GROUP_TEXT,
    MsgType.IMAGE: MsgType.GROUP_IMAGE,
    MsgType.FILE: MsgType.GROUP_FILE,
    MsgType.VOICE: MsgType.GROUP_VOICE,
}


def new_envelope(sender: str, to: str | None, msg_type: MsgType, *body: Mapping[str, Any]) -> Envelope:
    """Return an envelope with a fresh msg_id and the client's clock in msg_time; groups need no `to`."""
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


def group_message(sender: str, session_id: str, msg_type: MsgType, content: Mapping[str, Any]) -> Envelope:
    """Return a message to all members of a session; `msg_type` may be the group's or the 1:1 one of the same kind."""
    return new_envelope(sender, None, _IN_GROUPS.get(msg_type, msg_type), {"session_id": session_id, **content})


def receipt(reader: str, message: Envelope, msg_type: MsgType = MsgType.RECEIVED) -> Envelope:
    """Return the receipt by which `reader` reports `message` as received or read."""
    return about(reader, msg_type, [message.msg_id], to=message.msg_from, session_id=message.session_id)


def about(
    sender: str, msg_type: MsgType, msg_ids: Sequence[str], *, to: str | None = None, session_id: str | None = None
) -> Envelope:
    """Return a receipt or a recall of messages in the conversation with `to`, or in a session."""
    if session_id is None:
        return new_envelope(sender, to, msg_type, *({"msg_id": msg_id} for msg_id in msg_ids))
    elements = ({"session_id": session_id, "msg_id": msg_id} for msg_id in msg_ids)
    return new_envelope(sender, None, msg_type, *elements)

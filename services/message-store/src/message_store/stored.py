"""A message of a stream, as JetStream's API gives it to whoever asks for a place: its payload and its headers."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any


def payload_of(message: Mapping[str, Any]) -> bytes:
    """Return the payload; JetStream leaves an empty one out."""
    return base64.b64decode(message.get("data", ""))


def headers_of(message: Mapping[str, Any]) -> dict[str, str]:
    """Read the headers of a stored message: a line `NATS/1.0`, then `name: value` each."""
    try:
        text = base64.b64decode(message.get("hdrs", "")).decode()
    except (binascii.Error, UnicodeDecodeError):
        return {}
    pairs = (line.partition(":") for line in text.splitlines()[1:] if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}

"""The rules of `Idempotency-Key`: a request that is repeated with its key is answered, and not carried out again."""

import hashlib
import json
import re

from tlim_protocol.errors import ErrorCode, TlimError

from session_api.edits import NewSession

HEADER = "Idempotency-Key"

KEPT_MS = 24 * 3_600 * 1_000
"""How long an answer waits for its request to come again."""

KEY = r"^[!-~]{1,64}$"
"""A UUID, with or without the quotes of draft-ietf-httpapi-idempotency-key-header: any visible ASCII."""


def checked_key(raw: str) -> str:
    """Return the key of a request; raises FIELD_INVALID for one that is empty, too long, or holds other characters."""
    if re.fullmatch(KEY, raw) is None:
        raise TlimError(ErrorCode.FIELD_INVALID, f"{HEADER} is not 1 to 64 visible ASCII characters", field=HEADER)
    return raw


def fingerprint(new: NewSession) -> str:
    """Return the SHA-256 of a checked request, in hex: the same for the same session through any door."""
    said = json.dumps([new.session_type, new.session_name, list(new.subscribers)])
    return hashlib.sha256(said.encode()).hexdigest()


def check_same(first: str, now: str) -> None:
    """Raise FIELD_INVALID when the fingerprint of the key's first request is not that of the request now."""
    if first != now:
        raise TlimError(ErrorCode.FIELD_INVALID, f"this {HEADER} came with another request before", field=HEADER)

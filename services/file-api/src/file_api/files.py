"""What a stored file is, and what the rules say to each other about it."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

_FILE_ID = re.compile(r"[0-9a-f]{32}")


class StoredFile(NamedTuple):
    """A file whose bytes are in S3: `size` in bytes, `sha256` in hex, `name` safe for headers and maybe empty."""

    file_id: str
    owner_id: str
    name: str
    media_type: str
    size: int
    sha256: str
    stored_at: datetime


class Upload(NamedTuple):
    """A file that is arriving: what its sender says about it, and its bytes, to be read once."""

    name: str | None
    media_type: str | None
    data: AsyncIterator[bytes]


class Share(NamedTuple):
    """A stored message by which `sender` gives a file to `recipients`."""

    file_id: str
    sender: str
    recipients: tuple[str, ...]


def new_file_id() -> str:
    """Return an id that nobody can guess: 122 random bits as 32 hex digits (ids hold at most 64 characters)."""
    return uuid4().hex


def is_file_id(text: str) -> bool:
    """Tell whether `text` has the form of our ids; nothing else goes to the database or to S3."""
    return _FILE_ID.fullmatch(text) is not None


def object_key(file_id: str) -> str:
    """Return where the bytes of a file are; made from the id alone, never from anything a client wrote."""
    return f"files/{file_id[:2]}/{file_id}"

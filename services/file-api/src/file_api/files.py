"""The values that the rules pass to each other: files, blobs and uploads, with the names of their objects in S3."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import uuid4

from file_api.inspect.inspection import ThumbnailSize

_FILE_ID = re.compile(r"[0-9a-f]{32}")


class Scan(StrEnum):
    """What the virus scanner says of a blob. SKIPPED: it was too large, or no scanner was configured."""

    SKIPPED = "skipped"
    WAITING = "waiting"
    CLEAN = "clean"
    INFECTED = "infected"


class Blob(NamedTuple):
    """Bytes in S3, which several files may have: `size` in bytes, `sha256` in hex; `width` and `height` in pixels.

    `thumbnail_type` is the media type of all thumbnails that have been made. `thumbnail_failed`: we tried when somebody
    asked, and none can be made. Not `examined`: width, height and duration are still to be found out.
    """

    blob_id: str
    sha256: str
    size: int
    scan: str = Scan.SKIPPED
    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None
    thumbnail_type: str | None = None
    thumbnail_failed: bool = False
    examined: bool = True

    @property
    def object_key(self) -> str:
        """The key of the object with its bytes."""
        return object_key(self.blob_id)

    @property
    def object_keys(self) -> list[str]:
        """The keys of all objects that are removed with it."""
        thumbnails = ThumbnailSize if self.thumbnail_type is not None else ()
        return [self.object_key, *(thumbnail_key(self.blob_id, size) for size in thumbnails)]


class StoredFile(NamedTuple):
    """A file whose bytes are in S3; `name` is safe for headers and maybe empty."""

    file_id: str
    owner_id: str
    name: str
    media_type: str
    stored_at: datetime
    blob: Blob
    sent: bool = False
    """At least one message with it was about to be stored. Only message-store knows whether any was."""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.blob.size

    @property
    def sha256(self) -> str:
        """The digest of its bytes, in hex."""
        return self.blob.sha256


class Upload(NamedTuple):
    """A file that is arriving: what its sender says about it, and its bytes, to be read once."""

    name: str | None
    media_type: str | None
    data: AsyncIterator[bytes]
    at_least: int = 0
    """A lower bound of the number of bytes, known before they are read; 0: nothing is known."""


class NewUpload(NamedTuple):
    """An upload that begins; `reserved_bytes` of its owner's quota are its own until it ends."""

    upload_id: str
    owner_id: str
    began_at: datetime
    expires_at: datetime
    reserved_bytes: int = 0


class Usage(NamedTuple):
    """What a user has: the number of files, their bytes, and the bytes that running uploads have reserved."""

    files: int
    stored_bytes: int
    reserved_bytes: int


class DirectUpload(NamedTuple):
    """An upload whose owner puts the bytes into S3, part by part: what the owner declared, and how it is cut."""

    upload_id: str
    owner_id: str
    size: int
    name: str
    media_type: str | None
    sha256: str | None
    part_bytes: int
    s3_upload_id: str
    expires_at: datetime

    @property
    def part_count(self) -> int:
        """How many parts it has, numbered from 1."""
        return -(-self.size // self.part_bytes)

    def part_size(self, number: int) -> int:
        """Return how many bytes a part must have: all have the same number, the last one has the rest."""
        return min(self.part_bytes, self.size - (number - 1) * self.part_bytes)


class Received(NamedTuple):
    """An upload whose bytes are all in S3 under its object key: `size` in bytes, `sha256` in hex."""

    upload_id: str
    owner_id: str
    name: str
    media_type: str
    size: int
    sha256: str


def new_file_id() -> str:
    """Return an id that nobody can guess: 122 random bits as 32 hex digits (ids hold at most 64 characters)."""
    return uuid4().hex


def is_file_id(text: str) -> bool:
    """Tell whether `text` has the form of our ids. No other text is looked up in the database or in S3."""
    return _FILE_ID.fullmatch(text) is not None


def object_key(blob_id: str) -> str:
    """Return the key of the object of a blob or an upload, made from the id alone, never from a client's text."""
    return f"files/{blob_id[:2]}/{blob_id}"


def thumbnail_key(blob_id: str, size: ThumbnailSize) -> str:
    """Return the key of the object of a thumbnail, whether or not it has been made yet."""
    return f"thumbnails/{blob_id[:2]}/{blob_id}-{size.value}"

"""What can be found out by looking into a file, and the limits for that. The service and its workers share it."""

from enum import IntEnum, StrEnum
from typing import NamedTuple

MAX_INSPECTED_BYTES = 64 * 1024 * 1024
"""Larger files are not looked into. Photos of telephones and voice messages are far smaller."""

MAX_PIXELS = 50_000_000
"""The default size of the photos of telephones. Decoded it is 200 MiB."""

MAX_WORKER_BYTES = 1024 * 1024 * 1024
"""The address space of a worker: four copies of the largest image, as WebP needs them, and two of its file. A file that
needs more is taken for a decompression bomb."""

MAX_WORKER_SECONDS = 10
"""Of processor time, for one file: the largest photo takes two."""

MAX_DURATION_MS = 30 * 24 * 3600 * 1000
"""30 days. A file that claims more is damaged, and its number may not fit into the database's column."""

MAX_THUMBNAIL_BYTES = 4 * 1024 * 1024
"""More than any thumbnail of the largest size can have, also as PNG."""


class ThumbnailSize(IntEnum):
    """The longest side in pixels; the set is closed, because each size is stored."""

    SMALL = 128
    MEDIUM = 320
    LARGE = 960


class Kind(StrEnum):
    """The kinds of files that can be looked into, each with a program of its own."""

    IMAGE = "image"
    AUDIO = "audio"


_KINDS = {
    **dict.fromkeys(("image/jpeg", "image/png", "image/gif", "image/webp"), Kind.IMAGE),
    # films too: a voice message may come in any of these
    **dict.fromkeys(("application/ogg", "video/ogg", "video/mp4", "video/3gpp", "video/3gpp2"), Kind.AUDIO),
    **dict.fromkeys(("video/webm", "video/x-matroska", "video/quicktime"), Kind.AUDIO),
}


class Facts(NamedTuple):
    """Width and height in pixels as the image is to be seen, duration in milliseconds; None where it does not apply."""

    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None


class Thumbnail(NamedTuple):
    """A small picture of an image, without its metadata."""

    data: bytes
    media_type: str


class Inspected(NamedTuple):
    """The worker's answer: the thumbnail when one was asked for."""

    facts: Facts
    thumbnail: Thumbnail | None = None


class UnsuitableError(Exception):
    """The file is not what its type says, is damaged, or is over the limits: asking again changes nothing."""


def kind_of(media_type: str) -> Kind | None:
    """Return what a file of this media type can be looked into as, if at all."""
    return _KINDS.get(media_type) or (Kind.AUDIO if media_type.startswith("audio/") else None)

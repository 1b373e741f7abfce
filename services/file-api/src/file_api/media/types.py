"""The media type of a file: what its first bytes say, with what the sender says where bytes cannot tell."""

import mimetypes
import re
from pathlib import PurePath
from typing import NamedTuple

import puremagic

from file_api.inspect.inspection import kind_of

HEAD_BYTES = 4096
"""How much of a file is looked at: every signature of puremagic but those of disc images lies within."""

UNKNOWN = "application/octet-stream"

_MIN_CONFIDENCE = 0.3  # puremagic: a tenth per byte of the signature; two bytes ('BM') come by chance, JPEG has three
_CONCRETE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_SAYS_NOTHING = frozenset({UNKNOWN, "application/x-www-form-urlencoded", "multipart/form-data", "binary/octet-stream"})
_TEXTUAL = re.compile(r"text/.*|application/(json|xml|javascript|x-docbook\+xml)|.*\+(xml|json)")
_ZIP = b"PK\x03\x04"

# Only Python's own table: that of the machine would make the answer depend on where the service runs.
_BY_EXTENSION = mimetypes.MimeTypes()
_BY_EXTENSION.add_type("audio/amr", ".amr")  # voice messages of phones; RFC 4867


class _Finding(NamedTuple):
    media_type: str
    extension: str
    confidence: float


def media_type_of(head: bytes, declared: str | None, name: str) -> str:
    """Return the media type, lower case and without parameters, of a file that begins with `head` (≤ HEAD_BYTES).

    The bytes win over `declared` (the client's Content-Type) and over the extension of `name`. These decide where the
    bytes know several answers (Office files are ZIP files) or none (text, unknown formats), but never how a file is
    looked into, if the bytes know that: others may have the same.
    """
    findings = _of_one_kind(_findings(head))
    claimed = concrete(declared) or _BY_EXTENSION.guess_type(name)[0] or _by_extension(findings, name)
    if claimed is not None and any(finding.media_type == claimed for finding in findings):
        return claimed
    strong = [finding.media_type for finding in findings if finding.confidence >= _MIN_CONFIDENCE]
    if head.startswith(_ZIP):
        return "application/zip"  # puremagic names every format that is a ZIP file inside
    if strong and not (claimed and _TEXTUAL.fullmatch(strong[0]) and _TEXTUAL.fullmatch(claimed)):
        return strong[0]
    return claimed or ("text/plain" if _is_text(head) else UNKNOWN)


def concrete(declared: str | None) -> str | None:
    """Return the media type that a client tells, lower case and without parameters; None for none, and for nonsense."""
    essence = (declared or "").partition(";")[0].strip().lower()
    return essence if _CONCRETE.fullmatch(essence) and essence not in _SAYS_NOTHING else None


def _findings(head: bytes) -> list[_Finding]:
    try:
        matches = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):  # nothing known; nothing given
        return []
    found = (_Finding(_named(match), match.extension, match.confidence) for match in matches)
    return [finding for finding in found if finding.media_type != UNKNOWN]


def _of_one_kind(findings: list[_Finding]) -> list[_Finding]:
    """Leave out what is looked into in another way than the surest: WebP, WAV and AVI files all begin with RIFF."""
    if not findings:
        return []
    surest = kind_of(max(findings, key=lambda finding: finding.confidence).media_type)
    return [finding for finding in findings if kind_of(finding.media_type) is surest]


def _named(match: puremagic.PureMagicWithConfidence) -> str:
    return match.mime_type or _BY_EXTENSION.guess_type(f"file{match.extension}")[0] or UNKNOWN


def _by_extension(findings: list[_Finding], name: str) -> str | None:
    extension = PurePath(name).suffix.lower()
    return next((finding.media_type for finding in findings if finding.extension == extension), None)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else only the last character is cut
            return False
        text = head[: error.start].decode()
    return not any(char < " " and char not in "\t\n\r\f" for char in text)

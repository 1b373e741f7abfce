"""The media type of a file: its first bytes decide, and the sender's word where the bytes cannot tell."""

import mimetypes
import re
from pathlib import PurePath
from typing import NamedTuple

import puremagic

from file_api.inspect.inspection import kind_of
from file_api.media.containers import container_of

HEAD_BYTES = 4096
"""How much of a file is looked at. All signatures of puremagic lie within, except those of disc images."""

UNKNOWN = "application/octet-stream"

_MIN_CONFIDENCE = 0.3  # puremagic: a tenth per byte of the signature; two bytes ('BM') come by chance, JPEG has three
_CONCRETE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}")
_SAYS_NOTHING = frozenset({UNKNOWN, "application/x-www-form-urlencoded", "multipart/form-data", "binary/octet-stream"})
_TEXTUAL = re.compile(r"text/.*|application/(json|xml|javascript|x-docbook\+xml)|.*\+(xml|json)")
# Only Python's own table: the table of the machine would make the answer depend on where the service runs. Newer
# versions of Python know some of these extensions, older ones do not.
_BY_EXTENSION = mimetypes.MimeTypes()
_OFFICE = "application/vnd.openxmlformats-officedocument."
for _extension, _media_type in {
    ".3ga": "audio/3gpp",
    ".3gp": "video/3gpp",  # Python says audio, and most of them are not
    ".amr": "audio/amr",  # voice messages of phones; RFC 4867
    ".apk": "application/vnd.android.package-archive",
    ".avif": "image/avif",
    ".docx": f"{_OFFICE}wordprocessingml.document",
    ".epub": "application/epub+zip",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".jar": "application/java-archive",
    ".m4a": "audio/mp4",
    ".mka": "audio/x-matroska",
    ".mkv": "video/x-matroska",
    ".mpp": "application/vnd.ms-project",
    ".msg": "application/vnd.ms-outlook",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ofd": "application/ofd",  # GB/T 33190
    ".pptx": f"{_OFFICE}presentationml.presentation",
    ".vsd": "application/vnd.visio",
    ".weba": "audio/webm",
    ".xlsx": f"{_OFFICE}spreadsheetml.sheet",
}.items():
    _BY_EXTENSION.add_type(_media_type, _extension)


class _Finding(NamedTuple):
    media_type: str
    extension: str
    confidence: float


def media_type_of(head: bytes, declared: str | None, name: str) -> str:
    """Return the media type, lower case and without parameters, of a file that begins with `head` (≤ HEAD_BYTES).

    The bytes win over `declared` (the client's Content-Type) and over the extension of `name`. These two decide what a
    container holds (`containers.py`). They also decide where the bytes allow several answers or none: text, unknown
    formats. They never decide how a file is looked into where the bytes tell it, because other files share its bytes.
    """
    claims = [claim for claim in (concrete(declared), _BY_EXTENSION.guess_type(name)[0]) if claim is not None]
    container = container_of(head)
    if container is not None:
        return container.told(claims)
    findings = _of_one_kind(_findings(head))
    claimed = claims[0] if claims else _by_extension(findings, name)
    if claimed is not None and any(finding.media_type == claimed for finding in findings):
        return claimed
    strong = [finding.media_type for finding in findings if finding.confidence >= _MIN_CONFIDENCE]
    if strong and not (claimed and _TEXTUAL.fullmatch(strong[0]) and _TEXTUAL.fullmatch(claimed)):
        return strong[0]
    return claimed or ("text/plain" if _is_text(head) else UNKNOWN)


def concrete(declared: str | None) -> str | None:
    """Return the media type that a client tells, lower case, without parameters; None for none or a malformed one."""
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
    """Return the findings that are looked into in the same way as the surest finding."""
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

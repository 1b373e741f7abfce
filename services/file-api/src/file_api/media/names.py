"""File names as people give them: read from headers in any of the forms in use, made safe, written per RFC 6266."""

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

from python_multipart.multipart import parse_options_header
from tlim_protocol.characters import JOINERS, shows_something

MAX_NAME = 255
"""Bytes in UTF-8: the limit of common file systems."""

_MAX_RAW = 1024  # characters; a header may have 64 KiB, and NFC sorts marks in a time that grows with their square

_EXTENDED = re.compile(rb"""filename\*\s*=\s*"?([\w.:-]+)'[^']*'([^;"\s]+)""", re.IGNORECASE)
# Chinese clients of the specification's age send the platform's encoding; GB 18030 contains GBK and GB 2312.
_ENCODINGS = ("utf-8", "gb18030", "latin-1")
# A closed list: some of Python's codecs are no character sets, and raise other errors.
_CHARSETS = frozenset({*_ENCODINGS, "iso-8859-1", "us-ascii", "gbk", "gb2312", "big5", "shift_jis", "euc-kr"})


def read_disposition(header: bytes) -> tuple[str, str | None]:
    """Return the type ('form-data', 'attachment', …) and the raw file name of a Content-Disposition header, if any.

    `filename*` (RFC 8187) wins over `filename`; browsers put bare UTF-8 into the latter, and `%22` for a quote.
    """
    kind, parameters = parse_options_header(header)
    extended = _EXTENDED.search(header)
    if extended is not None:
        charset, value = extended.group(1).decode("ascii", "replace"), unquote_to_bytes(extended.group(2))
        return kind.decode("latin-1"), _decode(value, charset)
    plain = parameters.get(b"filename")
    if plain is None:
        return kind.decode("latin-1"), None
    if plain.count(b'"') % 2:  # some clients close the quotes twice
        plain = plain.removesuffix(b'"')
    return kind.decode("latin-1"), _decode(plain.replace(b"%22", b'"'))


def safe_name(raw: str | None) -> str:
    """Return a name that is safe as a header value and in a file system: no path, no control or direction characters.

    Characters that join neighbours stay: emoji of families, Persian. At most 255 bytes in UTF-8, cut before its
    extension. Of more than 1,024 characters the last ones count. Empty when nothing is left that a reader would see.
    """
    end = (raw or "")[-_MAX_RAW:]  # with the extension
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", end))[-1]
    printable = "".join(char for char in base if char in JOINERS or not _is_removed(char))
    if not shows_something(printable):
        return ""
    name = printable.strip(" .")
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > MAX_NAME // 4:
        return _cut(name, MAX_NAME)
    return _cut(stem, MAX_NAME - len(extension.encode()) - 1) + dot + extension


def attachment(name: str, fallback: str) -> str:
    """Return a Content-Disposition (RFC 6266) under which a browser saves the file and never opens it in our origin.

    A name outside ASCII goes into `filename*`; `filename` then holds what old clients can read. `fallback` is an ASCII
    name for a file that has none.
    """
    name = name or fallback
    plain = "".join(char if " " <= char <= "~" and char not in '"\\%' else "_" for char in name)
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _is_removed(char: str) -> bool:
    # Cf holds the direction overrides that make 'cod.exe' look like 'exe.doc'; Cs cannot be written as UTF-8.
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and not 0xE0020 <= ord(char) <= 0xE007F


def _cut(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")


def _decode(raw: bytes, charset: str = _ENCODINGS[0]) -> str:
    told = (charset.lower(),) if charset.lower() in _CHARSETS else ()
    for encoding in (*told, *_ENCODINGS):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return ""

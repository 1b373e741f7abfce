"""Range and conditional requests (RFC 9110 sections 13 and 14) as pure functions of header values.

`werkzeug.http` does not replace them: it cannot tell a malformed Range from none, refuses a suffix longer than the
file, takes a weak tag in If-Range for a strong one, and does not know If-Unmodified-Since.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_MAX_DIGITS = 19  # of a 64-bit number
_ETAG = re.compile(r'(?:W/)?"[^"]*"')


class ByteRange(NamedTuple):
    """The bytes from `start` to `end`, both included, counted from 0."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes it covers."""
        return self.end - self.start + 1


class UnsatisfiableRangeError(Exception):
    """A byte range that is malformed or wholly outside the file: answered with 416."""


class Validators(NamedTuple):
    """What identifies one version of a file: a strong entity tag in its quotes, and when it was stored."""

    etag: str
    modified: datetime

    @property
    def last_modified(self) -> str:
        """The time as an HTTP date, which has whole seconds."""
        return format_datetime(self.modified.astimezone(UTC).replace(microsecond=0), usegmt=True)


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Return the single byte range that a Range header asks for, or None for the whole file.

    `size` is the file's length in bytes, at least 1. Several ranges, and units other than bytes, are answered with the
    whole file (RFC 9110 section 14.2 allows a server to ignore them). Raises UnsatisfiableRangeError for a byte range
    that is malformed or selects nothing.
    """
    unit, equals, specs = (header or "").partition("=")
    if not equals or unit.strip().lower() != "bytes" or "," in specs:
        return None
    matched = _SPEC.fullmatch(specs.strip())
    if matched is None or matched.group(1, 2) == ("", ""):
        raise UnsatisfiableRangeError
    first, last = (_number(digits) for digits in matched.groups())
    if first is None:
        start, end = max(size - (last or 0), 0), size - 1
    else:
        start, end = first, size - 1 if last is None else last
    if start > end or start >= size:
        raise UnsatisfiableRangeError
    return ByteRange(start, min(end, size - 1))


def _number(digits: str) -> int | None:
    """Read a number, of which 19 digits are enough: that is more than any size. Python reads no more than 4,300."""
    significant = digits.lstrip("0")
    return int(significant[:_MAX_DIGITS] or "0") if digits else None


def is_other_version(headers: Mapping[str, str], current: Validators) -> bool:
    """Tell whether a GET or HEAD is answered with 412: If-Match decides, If-Unmodified-Since only without it."""
    tags = headers.get("if-match")
    if tags is not None:
        return tags.strip() != "*" and current.etag not in _ETAG.findall(tags)  # a weak tag keeps its W/: no match
    since = _parse_date(headers.get("if-unmodified-since"))
    return since is not None and current.modified.replace(microsecond=0) > since


def is_not_modified(headers: Mapping[str, str], current: Validators) -> bool:
    """Tell whether a GET or HEAD is answered with 304: If-None-Match decides, If-Modified-Since only without it."""
    tags = headers.get("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or current.etag in {tag.removeprefix("W/") for tag in _ETAG.findall(tags)}
    since = _parse_date(headers.get("if-modified-since"))
    return since is not None and current.modified.replace(microsecond=0) <= since


def allows_range(if_range: str | None, current: Validators) -> bool:
    """Tell whether a Range header counts: always without If-Range, else only for the same version (strong compare)."""
    if if_range is None:
        return True
    return if_range.strip() in (current.etag, current.last_modified)


def _parse_date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

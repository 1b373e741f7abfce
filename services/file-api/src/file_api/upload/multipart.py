"""Reading the one file of a multipart/form-data body as it arrives (RFC 7578): no spool file, no buffer that grows.

This is our own parser, because libraries refuse what well-known old clients send: lines that end with LF alone, a
preamble, and file names with raw control characters. The best-known Java snippet for uploads uses
`DataOutputStream.writeBytes`. It keeps only the low byte of each Chinese character: maybe a CR, an LF or a quote.
"""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.errors import PayloadTooLarge

from file_api.errors import EncodedPart
from file_api.media.names import read_disposition

MAX_FRAMING = 64 * 1024
"""Bytes of a form that are not the file: boundaries, headers and text fields, which we read past."""

_MAX_BOUNDARY = 256  # RFC 2046 section 5.1.1 allows 70 characters
_MAX_HEADERS = 16 * 1024  # of one part; a file name takes most of them
_MAX_PADDING = 64  # blanks behind a boundary
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TRANSPARENT = (b"", b"7bit", b"8bit", b"binary")
_OF_A_FIELD = re.compile(r"text/.*|application/(.+\+)?(json|xml)|application/x-www-form-urlencoded")
"""A part of such a type without a file name is a field: Retrofit sends objects as JSON beside the file."""


class FilePart(NamedTuple):
    """What the form says about its file: the name as the client wrote it, and the media type it claims."""

    name: str | None
    media_type: str | None


class FormReader:
    """Finds the file part of a form, whatever its field is called, and gives out its bytes while they arrive.

    Use once: `part = await reader.open()`, then `async for data in reader.data()`. Every refusal is a TlimError:
    FIELD_INVALID when the body is no form, is cut short, or holds no file or several; PayloadTooLarge when there are
    more than 64 KiB around the file.
    """

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 0 < len(boundary) <= _MAX_BOUNDARY:
            raise _refused("the Content-Type has no boundary, or one that is too long")
        self._body = body
        self._dash_boundary = b"--" + boundary
        self._line_end = b"\r\n"
        self._unread = bytearray()
        self._framing = 0
        self._is_over = False

    async def open(self) -> FilePart:
        """Read up to the beginning of the file and return what the form says about it."""
        await self._find_first_part()
        while not self._is_over:
            part = _file_in(await self._headers())
            if part is not None:
                return part
            await self._skip_content()
        raise _refused("the form has no file part")

    async def data(self) -> AsyncIterator[bytes]:
        """Give out the bytes of the file in order, then read the form to its end before returning."""
        async for data in self._content():
            yield data
        while not self._is_over:
            if _file_in(await self._headers()) is not None:
                raise _refused("the form has several file parts")
            await self._skip_content()
        async for epilogue in self._body:
            self._count(len(epilogue))

    async def _find_first_part(self) -> None:
        """Read past the preamble and the first boundary, which shows how this client ends its lines."""
        first = re.compile(rb"\n" + re.escape(self._dash_boundary) + rb"([ \t]*(\r?\n)|--)")
        self._unread += b"\n"  # as if a line had ended before the first one
        while (found := first.search(self._unread)) is None:
            self._drop(len(self._unread) - len(self._dash_boundary) - _MAX_PADDING)  # the boundary may have begun
            await self._more()
        line_end, end = found[2], found.end()  # read now: `_drop` changes the buffer that was searched
        self._is_over = line_end is None
        self._line_end = line_end or self._line_end
        self._drop(end)

    async def _headers(self) -> dict[bytes, bytes]:
        """Read the headers of a part, by their names in lower case."""
        end = 2 * self._line_end
        while not self._unread.startswith(self._line_end) and end not in self._unread:
            if len(self._unread) > _MAX_HEADERS:
                raise _refused(f"the headers of a part have more than {_MAX_HEADERS} bytes")
            await self._more()
        if self._unread.startswith(self._line_end):
            self._drop(len(self._line_end))
            return {}
        block = bytes(self._unread[: self._unread.index(end)])
        self._drop(len(block) + len(end))
        return _parsed(block.split(self._line_end))

    async def _content(self) -> AsyncIterator[bytes]:
        """Give out the content of a part, then read past the boundary behind it."""
        delimiter = self._line_end + self._dash_boundary
        while (place := self._unread.find(delimiter)) < 0:
            sure = len(self._unread) - len(delimiter)  # the rest may be the beginning of the delimiter
            if sure > 0:
                yield bytes(self._unread[:sure])
                del self._unread[:sure]
            await self._more()
        if place:
            yield bytes(self._unread[:place])
        del self._unread[:place]
        self._drop(len(delimiter))
        await self._end_boundary()

    async def _skip_content(self) -> None:
        async for data in self._content():
            self._count(len(data))

    async def _end_boundary(self) -> None:
        while not self._unread.startswith(b"--") and self._line_end not in self._unread:
            if len(self._unread) > _MAX_PADDING:
                raise _refused("the boundary stands within the content")
            await self._more()
        self._is_over = self._unread.startswith(b"--")
        padding = b"--" if self._is_over else bytes(self._unread[: self._unread.index(self._line_end)])
        if not self._is_over and padding.strip(b" \t"):
            raise _refused("the boundary stands within the content")
        self._drop(len(self._unread) if self._is_over else len(padding) + len(self._line_end))

    async def _more(self) -> None:
        chunk = await anext(self._body, None)
        if chunk is None:
            raise _refused("the body is not a multipart form, or it is cut short")
        self._unread += chunk

    def _drop(self, count: int) -> None:
        if count > 0:
            del self._unread[:count]
            self._count(count)

    def _count(self, count: int) -> None:
        self._framing += count
        if self._framing > MAX_FRAMING:
            raise PayloadTooLarge(f"the form holds more than {MAX_FRAMING} bytes besides the file")


def _parsed(lines: list[bytes]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    last = b""
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and _HEADER_NAME.fullmatch(name.strip()):
            last = name.strip().lower()
            headers[last] = value.strip()
        elif last:  # a header that goes on, or the end of a line in the middle of a file name
            headers[last] += line
    return headers


def _file_in(headers: dict[bytes, bytes]) -> FilePart | None:
    """Return what a part says about its file; None for an ordinary field."""
    _, name = read_disposition(headers.get(b"content-disposition", b""))
    media_type = headers.get(b"content-type", b"").decode("latin-1") or None
    essence = (media_type or "text/plain").partition(";")[0].strip().lower()
    if name is None and _OF_A_FIELD.fullmatch(essence):
        return None
    if headers.get(b"content-transfer-encoding", b"").lower() not in _TRANSPARENT:
        raise _refused("Content-Transfer-Encoding is not supported (RFC 7578 section 4.7)")
    if headers.get(b"content-encoding", b"").lower() not in (b"", b"identity"):
        raise EncodedPart
    return FilePart(name, media_type)


def _refused(detail: str) -> TlimError:
    return TlimError(ErrorCode.FIELD_INVALID, detail, field="file")

"""Reading the one file of a multipart/form-data body as it arrives (RFC 7578): no spool file, no buffer that grows."""

from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.errors import PayloadTooLarge

from file_api.media.names import read_disposition

MAX_FRAMING = 64 * 1024
"""Bytes of a form that are not the file: boundaries, headers and text fields, which we read past."""

_TRANSPARENT = (b"", b"7bit", b"8bit", b"binary")


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
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise _refused("the Content-Type has no boundary")
        self._body = body
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = bytearray(), bytearray()
        self._file: FilePart | None = None
        self._in_file = self._complete = False
        self._ready: deque[bytes] = deque()
        self._framing = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin_part,
                    "on_part_data": self._take,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _refused(str(error)) from error

    async def open(self) -> FilePart:
        """Read up to the beginning of the file and return what the form says about it."""
        while self._file is None:
            if not await self._feed():
                raise _refused("the form has no file part")
        return self._file

    async def data(self) -> AsyncIterator[bytes]:
        """Give out the bytes of the file in order, then read the form to its end before returning."""
        more = True
        while more:
            while self._ready:
                yield self._ready.popleft()
            more = await self._feed()
        while self._ready:
            yield self._ready.popleft()
        if not self._complete:
            raise _refused("the form is cut short")

    async def _feed(self) -> bool:
        chunk = await anext(self._body, None)
        if chunk is None:
            return False
        self._framing += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _refused("the body is not a well-formed multipart form") from error
        if self._framing > MAX_FRAMING:
            raise PayloadTooLarge(f"the form holds more than {MAX_FRAMING} bytes besides the file")
        return True

    def _end_header(self) -> None:
        self._headers[bytes(self._field).strip().lower()] = bytes(self._value).strip()
        self._field.clear()
        self._value.clear()

    def _begin_part(self) -> None:
        _, name = read_disposition(self._headers.get(b"content-disposition", b""))
        media_type = self._headers.get(b"content-type", b"").decode("latin-1") or None
        if name is None and (media_type or "text/plain").startswith("text/plain"):
            return  # an ordinary field
        if self._file is not None:
            raise _refused("the form has several file parts")
        if self._headers.get(b"content-transfer-encoding", b"").lower() not in _TRANSPARENT:
            raise _refused("Content-Transfer-Encoding is not supported (RFC 7578 section 4.7)")
        self._file, self._in_file = FilePart(name, media_type), True

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._ready.append(data[start:end])
            self._framing -= end - start

    def _end_part(self) -> None:
        self._in_file = False

    def _end(self) -> None:
        self._complete = True


def _refused(detail: str) -> TlimError:
    return TlimError(ErrorCode.FIELD_INVALID, detail, field="file")

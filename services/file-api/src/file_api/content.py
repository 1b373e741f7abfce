"""A file as an HTTP answer: headers, ranges, conditional requests (RFC 9110), and a stream that is always closed."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from tlim_protocol.errors import ErrorCode
from tlim_runtime.auth import CurrentUser
from tlim_runtime.errors import problem

from file_api.files import StoredFile
from file_api.names import attachment
from file_api.ranges import ByteRange, UnsatisfiableRangeError, Validators, allows_range, is_not_modified, parse_range
from file_api.service import FileService


async def content_of(file: StoredFile, request: Request, user: CurrentUser, service: FileService) -> Response:
    """Answer a GET or HEAD for a file that the user may read: 200, 206, 304 or 416. Raises Unavailable."""
    current = Validators(etag=f'"{file.sha256}"', modified=file.stored_at)
    headers = {
        "ETag": current.etag,
        "Last-Modified": current.last_modified,
        "Cache-Control": "private, no-cache",  # may be kept, but whether it may still be read is asked each time
    }
    if is_not_modified(request.headers, current):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Type": file.media_type,
        "Content-Disposition": attachment(file.name, file.file_id),
        # People upload HTML and SVG with scripts: a browser must neither guess a type nor run what it shows.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(file.size)})
    try:
        wanted = request.headers.get("range") if allows_range(request.headers.get("if-range"), current) else None
        span = parse_range(wanted, file.size)
    except UnsatisfiableRangeError:
        return _not_satisfiable(file)
    data = await service.open(file, user.user_id, span)
    return _stream(data, headers, span, file.size)


def _stream(data: AsyncGenerator[bytes, None], headers: dict[str, str], span: ByteRange | None, size: int) -> Response:
    if span is None:
        return FileResponse(data, HTTPStatus.OK, {**headers, "Content-Length": str(size)})
    part = {"Content-Length": str(span.length), "Content-Range": f"bytes {span.start}-{span.end}/{size}"}
    return FileResponse(data, HTTPStatus.PARTIAL_CONTENT, {**headers, **part})


def _not_satisfiable(file: StoredFile) -> Response:
    detail = f"the range selects nothing of {file.size} bytes"
    answer = problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, detail, code=ErrorCode.FIELD_INVALID, field="range")
    answer.headers["Content-Range"] = f"bytes */{file.size}"
    return answer


class FileResponse(StreamingResponse):
    """A stream that is closed as soon as the answer ends, also when the client goes away in the middle."""

    def __init__(self, data: AsyncGenerator[bytes, None], status: HTTPStatus, headers: dict[str, str]) -> None:
        super().__init__(data, status, headers)
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._data):
            await super().__call__(scope, receive, send)

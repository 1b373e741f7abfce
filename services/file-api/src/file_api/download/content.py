"""A file as an HTTP answer: headers, ranges, conditional requests (RFC 9110), and a stream that is always closed."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from tlim_protocol.errors import ErrorCode
from tlim_runtime.auth import CurrentUser
from tlim_runtime.errors import problem
from tlim_runtime.logging import get_logger

from file_api.download.ranges import (
    ByteRange,
    UnsatisfiableRangeError,
    Validators,
    allows_range,
    is_not_modified,
    is_other_version,
    parse_range,
)
from file_api.files import StoredFile
from file_api.media.names import attachment
from file_api.pace import TransferPace
from file_api.running import Running
from file_api.service import FileService
from file_api.settings import Settings

logger = get_logger(__name__)


async def content_of(
    file: StoredFile, request: Request, user: CurrentUser, service: FileService, downloads: Running
) -> Response:
    """Answer a GET or HEAD for a file that the user may read: 200, 206, 304, 412 or 416.

    Raises TooManyRequests when too many downloads of this user run; Unavailable.
    """
    current = Validators(etag=f'"{file.sha256}"', modified=file.stored_at)
    headers = {
        "ETag": current.etag,
        "Last-Modified": current.last_modified,
        "Cache-Control": "private, no-cache",  # clients may keep it, and ask each time whether they still may read
    }
    if is_other_version(request.headers, current):  # first of all: RFC 9110 section 13.2.2
        return problem(HTTPStatus.PRECONDITION_FAILED, "the file is not the version that was asked for")
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
    settings: Settings = request.app.state.settings
    pace = TransferPace(settings.min_bytes_per_second, settings.stall_timeout.total_seconds())
    async with AsyncExitStack() as opened:
        opened.enter_context(downloads.one(user.user_id))
        data = await opened.enter_async_context(aclosing(await service.open(file, user.user_id, span)))
        status, length = _status(span, file.size)
        return FileResponse(data, status, {**headers, **length}, opened.pop_all(), pace)


def _status(span: ByteRange | None, size: int) -> tuple[HTTPStatus, dict[str, str]]:
    if span is None:
        return HTTPStatus.OK, {"Content-Length": str(size)}
    part = {"Content-Length": str(span.length), "Content-Range": f"bytes {span.start}-{span.end}/{size}"}
    return HTTPStatus.PARTIAL_CONTENT, part


def _not_satisfiable(file: StoredFile) -> Response:
    detail = f"the range selects nothing of {file.size} bytes"
    answer = problem(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, detail, code=ErrorCode.FIELD_INVALID, field="range")
    answer.headers["Content-Range"] = f"bytes */{file.size}"
    return answer


class FileResponse(StreamingResponse):
    """A stream that closes what was `opened` for it as soon as the answer ends.

    The answer ends in the middle when the client goes away, or takes nothing or too little for the `pace`.
    """

    def __init__(
        self,
        data: AsyncGenerator[bytes, None],
        status: HTTPStatus,
        headers: dict[str, str],
        opened: AsyncExitStack,
        pace: TransferPace,
    ) -> None:
        super().__init__(data, status, headers)
        self._opened = opened
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                await self._pace.wait_for(send(message), lambda _: len(message.get("body", b"")))
            except TimeoutError:
                raise _StalledError from None

        async with self._opened:
            try:
                await super().__call__(scope, receive, send_in_time)
            except _StalledError:  # the server closes the connection: the answer is not complete
                logger.info("a download was given up: its client takes nothing, or too little")


class _StalledError(Exception):
    pass

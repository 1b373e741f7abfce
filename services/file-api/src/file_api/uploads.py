"""The two forms of an upload as HTTP brings them: a multipart form with one file, or the file as the body itself."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from file_api.errors import UploadAborted
from file_api.files import Upload
from file_api.intake import too_large
from file_api.multipart import MAX_FRAMING, FormReader
from file_api.names import read_disposition


@asynccontextmanager
async def reading(request: Request, max_bytes: int) -> AsyncIterator[Upload]:
    """Give the upload in a request; its bytes are read from the connection as they are asked for.

    The name of a raw body comes from Content-Disposition or from `?name=`. Raises PayloadTooLarge before anything is
    read when Content-Length tells that it will be over `max_bytes`; TlimError for a form without exactly one file;
    UploadAborted while reading, when the client goes away.
    """
    content_type = request.headers.get("content-type", "")
    is_form = content_type.lower().startswith("multipart/form-data")
    announced = request.headers.get("content-length", "")
    at_least = max(0, int(announced) - (MAX_FRAMING if is_form else 0)) if announced.isdigit() else 0
    if at_least > max_bytes:
        raise too_large(max_bytes)
    async with aclosing(_body(request)) as body:
        if is_form:
            form = FormReader(content_type, body)
            part = await form.open()
            yield Upload(part.name, part.media_type, form.data(), at_least)
        else:
            yield Upload(_name_of_raw(request), content_type or None, body, at_least)


async def _body(request: Request) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise UploadAborted from None


def _name_of_raw(request: Request) -> str | None:
    _, name = read_disposition(request.headers.get("content-disposition", "").encode("latin-1"))
    return name or request.query_params.get("name")

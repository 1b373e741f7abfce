"""The two forms of an upload as HTTP brings them: a multipart form with one file, or the file as the body itself."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import Request
from starlette.requests import ClientDisconnect

from file_api.errors import UploadAborted, UploadTooSlow
from file_api.files import Upload
from file_api.media.names import read_disposition
from file_api.pace import TransferPace
from file_api.settings import Settings
from file_api.upload.intake import too_large
from file_api.upload.multipart import MAX_FRAMING, FilePart, FormReader


@asynccontextmanager
async def reading(request: Request) -> AsyncIterator[Upload]:
    """Give the upload in a request; its bytes are read from the connection as they are asked for.

    The name of a raw body comes from Content-Disposition or from `?name=`. Raises PayloadTooLarge before anything is
    read when Content-Length is too large, and TlimError for a form without exactly one file. Reading the bytes raises
    UploadAborted when the client goes away, and UploadTooSlow when it falls silent or sends too slowly.
    """
    settings: Settings = request.app.state.settings
    content_type = request.headers.get("content-type", "")
    is_form = content_type.lower().startswith("multipart/form-data")
    announced = request.headers.get("content-length", "")
    at_least = max(0, int(announced) - (MAX_FRAMING if is_form else 0)) if announced.isdigit() else 0
    if at_least > settings.max_upload_bytes:
        raise too_large(settings.max_upload_bytes)
    pace = TransferPace(settings.min_bytes_per_second, settings.stall_timeout.total_seconds())
    async with aclosing(_body(request, pace)) as body:
        if is_form:
            form = FormReader(content_type, body)
            part = await _opened(form, settings.upload_timeout.total_seconds())
            yield Upload(part.name, part.media_type, form.data(), at_least)
        else:
            yield Upload(_name_of_raw(request), content_type or None, body, at_least)


async def _opened(form: FormReader, within_s: float) -> FilePart:
    try:
        async with asyncio.timeout(within_s):
            return await form.open()
    except TimeoutError:
        raise UploadTooSlow from None


async def _body(request: Request, pace: TransferPace) -> AsyncGenerator[bytes, None]:
    pieces = request.stream()
    while (chunk := await _next(pieces, pace)) is not None:
        if chunk:
            yield chunk


async def _next(pieces: AsyncIterator[bytes], pace: TransferPace) -> bytes | None:
    try:
        return await pace.wait_for(anext(pieces, None), lambda chunk: len(chunk or b""))
    except ClientDisconnect:
        raise UploadAborted from None
    except TimeoutError:
        raise UploadTooSlow from None


def _name_of_raw(request: Request) -> str | None:
    _, name = read_disposition(request.headers.get("content-disposition", "").encode("latin-1"))
    return name or request.query_params.get("name")

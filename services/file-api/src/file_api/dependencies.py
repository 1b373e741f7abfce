"""The dependencies that the endpoints ask for, as annotated types."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.auth import CurrentUser, caller, current_user, token_user
from tlim_runtime.turns import Turns

from file_api.access import Access
from file_api.download.urls import DownloadUrls
from file_api.files import StoredFile
from file_api.media.previews import Previews
from file_api.running import Running
from file_api.service import FileService
from file_api.upload.admission import Admission
from file_api.upload.direct import DirectUploads

Configured = TypeVar("Configured")

Readable = Callable[[str, CurrentUser], Awaitable[StoredFile]]
"""Returns a file that a user may read. Only this takes a turn: what is done with the file then may last for minutes."""


async def _service(request: Request) -> FileService:
    service: FileService = request.app.state.files
    return service


async def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


async def _readable(request: Request, access: Annotated[Access, Depends(_access)]) -> Readable:
    turns: Turns = request.app.state.turns

    async def readable(file_id: str, user: CurrentUser) -> StoredFile:
        async with turns.one(user.user_id):
            return await access.readable(file_id, user.user_id)

    return readable


async def _s3_turn(request: Request, user: Annotated[CurrentUser, Depends(current_user)]) -> AsyncIterator[None]:
    turns: Turns = request.app.state.turns
    async with turns.one(f"{user.user_id} s3"):  # no user id has a space
        yield


async def _admission(request: Request) -> Admission:
    admission: Admission = request.app.state.admission
    return admission


async def _downloads(request: Request) -> Running:
    downloads: Running = request.app.state.downloads
    return downloads


async def _legacy_user(
    request: Request,
    token: Annotated[CurrentUser | None, Depends(token_user)],
    request_user: Annotated[str | None, Query(description="under TLIM_TRUST_REQUEST_USER: who calls")] = None,
    user_id: Annotated[str | None, Query(description="the same")] = None,
) -> CurrentUser:
    return caller(token, request_user or user_id, request.app.state.settings)


async def _direct(request: Request) -> DirectUploads:
    direct: DirectUploads | None = request.app.state.direct
    return _configured(direct)


async def _download_urls(request: Request) -> DownloadUrls:
    urls: DownloadUrls | None = request.app.state.download_urls
    return _configured(urls)


async def _previews(request: Request) -> Previews:
    previews: Previews = request.app.state.previews
    return previews


def _configured(found: Configured | None) -> Configured:
    if found is None:
        raise TlimError(ErrorCode.UNSUPPORTED, "this server gives nobody direct access to its storage")
    return found


IN_S3_TURN = Depends(_s3_turn, scope="function")
"""Use instead of IN_TURN for what asks S3. If S3 hangs, an answer takes a minute and a half, and what needs no S3 does
not wait for it."""

FilesDep = Annotated[FileService, Depends(_service)]
AccessDep = Annotated[Access, Depends(_access)]
ReadableDep = Annotated[Readable, Depends(_readable)]
DirectDep = Annotated[DirectUploads, Depends(_direct)]
PreviewsDep = Annotated[Previews, Depends(_previews)]
DownloadUrlsDep = Annotated[DownloadUrls, Depends(_download_urls)]
DownloadsDep = Annotated[Running, Depends(_downloads)]
AdmissionDep = Annotated[Admission, Depends(_admission)]
CurrentUserDep = Annotated[CurrentUser, Depends(current_user)]
LegacyUserDep = Annotated[CurrentUser, Depends(_legacy_user)]

"""The door for clients that carry their bytes to and from S3 themselves: /v1/uploads and /v1/files/{id}/url."""

from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.auth import TokenFirstRoute
from tlim_runtime.errors import problem_responses
from tlim_runtime.turns import IN_TURN, TURN_RESPONSES

from file_api.dependencies import IN_S3_TURN, AccessDep, CurrentUserDep, DirectDep, DownloadUrlsDep
from file_api.endpoints import TOO_LARGE
from file_api.files import is_file_id
from file_api.schemas import FileRead
from file_api.upload.direct_schemas import (
    DownloadUrl,
    PartUrlRead,
    PartUrls,
    UploadComplete,
    UploadCreate,
    UploadPage,
    UploadRead,
    UploadSummary,
)

PAGE = 100
"""URLs in one answer: each has some 400 bytes."""

MAX_BODY_BYTES = 64 * 1024
"""A declaration of a file has a few KiB."""

MAX_CHOICES_BYTES = 2 * 1024 * 1024
"""10,000 parts, each with its number and the longest ETag."""

router = APIRouter(
    tags=["direct"],
    route_class=TokenFirstRoute,
    responses=problem_responses(ErrorCode.UNAVAILABLE, ErrorCode.UNSUPPORTED, statuses=(401,)),
    max_body_size=MAX_BODY_BYTES,
)
_SHORT = [IN_TURN]
_ASKS_S3 = [IN_S3_TURN]  # not for completing: it may last for minutes, and counts as a running upload
_UNKNOWN = problem_responses(ErrorCode.FILE_UNKNOWN, ErrorCode.FIELD_INVALID, ErrorCode.UNSUPPORTED)
_ONE_OF_MINE = {**_UNKNOWN, **TURN_RESPONSES}
_JSON = problem_responses(ErrorCode.JSON_INVALID)
_DECLARED = {
    **problem_responses(ErrorCode.FIELD_INVALID, ErrorCode.UNSUPPORTED, ErrorCode.TOO_MANY_REQUESTS),
    **TOO_LARGE,
}


@router.post(
    "/v1/uploads", status_code=status.HTTP_201_CREATED, dependencies=_ASKS_S3, responses={**_JSON, **_DECLARED}
)
async def begin_upload(declared: UploadCreate, answer: Response, user: CurrentUserDep, direct: DirectDep) -> UploadRead:
    """Begin an upload; its bytes are put to the URLs in the answer, then it is completed."""
    upload = await direct.begin(user.user_id, declared.declared())
    answer.headers["Location"] = f"/v1/uploads/{upload.upload_id}"
    numbers = range(1, min(upload.part_count, PAGE) + 1)
    return UploadRead.of(upload, [], direct.urls(upload, numbers))


@router.get(
    "/v1/uploads",
    dependencies=_SHORT,
    responses={**problem_responses(ErrorCode.FIELD_INVALID, ErrorCode.UNSUPPORTED), **TURN_RESPONSES},
)
async def open_uploads(
    user: CurrentUserDep,
    direct: DirectDep,
    cursor: Annotated[str, Query(description="`next_cursor` of the page before", max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> UploadPage:
    """List the caller's open uploads; one that could not begin in S3 can only be aborted."""
    if cursor and not is_file_id(cursor):
        raise TlimError(ErrorCode.FIELD_INVALID, "this is no cursor of ours", field="cursor")
    found = await direct.open_uploads(user.user_id, cursor, limit + 1)
    items = [UploadSummary.of(upload) for upload in found[:limit]]
    return UploadPage(items=items, next_cursor=items[-1].upload_id if len(found) > limit else None)


@router.get("/v1/uploads/{upload_id}", dependencies=_ASKS_S3, responses=_ONE_OF_MINE)
async def show_upload(upload_id: str, user: CurrentUserDep, direct: DirectDep) -> UploadRead:
    """Tell what S3 has of an upload, and where the first missing parts go, so that a client can resume it."""
    upload = await direct.find(user.user_id, upload_id)
    received = await direct.received(upload)
    there = {part.number for part in received}
    missing = [number for number in range(1, upload.part_count + 1) if number not in there or upload.part_count == 1]
    return UploadRead.of(upload, received, direct.urls(upload, missing[:PAGE]))


@router.get("/v1/uploads/{upload_id}/parts", dependencies=_SHORT, responses=_ONE_OF_MINE)
async def sign_parts(
    upload_id: str,
    user: CurrentUserDep,
    direct: DirectDep,
    first: Annotated[int, Query(ge=1, le=10_000, description="number of the first part")] = 1,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
) -> PartUrls:
    """Sign URLs for parts in the order of their numbers, also for those that S3 has: they can be put again."""
    upload = await direct.find(user.user_id, upload_id)
    after = min(first + limit, upload.part_count + 1)
    items = [PartUrlRead.of(url) for url in direct.urls(upload, range(first, after))]
    return PartUrls(items=items, next=after if after <= upload.part_count else None)


@router.post(
    "/v1/uploads/{upload_id}/complete",
    responses={**_JSON, **_UNKNOWN, **problem_responses(ErrorCode.TOO_MANY_REQUESTS, statuses=(413,))},
    max_body_size=MAX_CHOICES_BYTES,
)
async def complete_upload(
    upload_id: str, user: CurrentUserDep, direct: DirectDep, choices: UploadComplete | None = None
) -> FileRead:
    """Make a file of an upload whose bytes are all in S3; it may take a while, and can be asked for again."""
    etags = {choice.number: choice.etag for choice in choices.parts} if choices else {}
    return FileRead.of(await direct.complete(user.user_id, upload_id, etags))


@router.delete(
    "/v1/uploads/{upload_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=_ASKS_S3, responses=_ONE_OF_MINE
)
async def abort_upload(upload_id: str, user: CurrentUserDep, direct: DirectDep) -> None:
    """Abort an upload; its parts are removed."""
    await direct.abort(user.user_id, upload_id)


@router.get("/v1/files/{file_id}/url", dependencies=_SHORT, responses=_ONE_OF_MINE)
async def download_url(file_id: str, user: CurrentUserDep, access: AccessDep, urls: DownloadUrlsDep) -> DownloadUrl:
    """Return a short-lived URL of the content, for users who may download it."""
    return DownloadUrl.of(await urls.of(await access.readable(file_id, user.user_id), user.user_id))

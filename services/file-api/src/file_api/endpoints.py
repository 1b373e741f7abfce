"""The modern door: /v1/files."""

from typing import Any

from fastapi import APIRouter, Request, status
from fastapi.responses import Response
from tlim_protocol.errors import ErrorCode
from tlim_runtime.errors import problem_responses
from tlim_runtime.turns import IN_TURN, TURN_RESPONSES

from file_api.dependencies import (
    IN_S3_TURN,
    AccessDep,
    AdmissionDep,
    CurrentUserDep,
    DownloadsDep,
    FilesDep,
    ReadableDep,
)
from file_api.download.content import content_of
from file_api.schemas import FileRead, UsageRead
from file_api.upload.forms import reading

router = APIRouter(tags=["files"], responses=problem_responses(ErrorCode.UNAVAILABLE, statuses=(401,)))

TOO_LARGE = problem_responses(statuses=(413,))
TOO_LARGE[413]["description"] += ", or more than the caller's quota has room for (the problem's `field` is `quota`)"
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": BINARY["schema"]}, "description": "any field name"}
            },
            "*/*": BINARY,
        },
    }
}
UPLOAD_REFUSALS = {
    **problem_responses(ErrorCode.FIELD_INVALID, ErrorCode.TOO_MANY_REQUESTS, statuses=(408, 415)),
    **TOO_LARGE,
}
CONTENT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {"*/*": BINARY}},
    206: {"description": "One range of it", "content": {"*/*": BINARY}},
    304: {"description": "Not modified"},
    **problem_responses(ErrorCode.TOO_MANY_REQUESTS, statuses=(412, 416)),
}
_UNKNOWN = problem_responses(ErrorCode.FILE_UNKNOWN)
_SHORT = [IN_TURN]  # transfers last: only the question whether a user may read the file takes a turn (ReadableDep)


@router.post("/v1/files", status_code=status.HTTP_201_CREATED, openapi_extra=UPLOAD_BODY, responses=UPLOAD_REFUSALS)
async def upload_file(request: Request, user: CurrentUserDep, files: FilesDep, admission: AdmissionDep) -> FileRead:
    """Upload a file: as the only file of a multipart form, or as the body itself (its name in `?name=`)."""
    with admission.one_more(user.user_id):
        async with reading(request) as upload:
            return FileRead.of(await files.upload(user.user_id, upload))


@router.get("/v1/files/usage", dependencies=_SHORT, responses=TURN_RESPONSES)
@router.head(
    "/v1/files/usage", dependencies=_SHORT, include_in_schema=False
)  # else HEAD would look for a file of that name, below
async def usage(user: CurrentUserDep, admission: AdmissionDep) -> UsageRead:
    """Tell how much the caller has, and may have."""
    used = await admission.usage(user.user_id)
    return UsageRead(**used._asdict(), quota_bytes=admission.quota_bytes)


@router.delete(
    "/v1/files/{file_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    dependencies=[IN_S3_TURN],
    responses={**_UNKNOWN, **TURN_RESPONSES},
)
async def delete_file(file_id: str, user: CurrentUserDep, files: FilesDep) -> None:
    """Delete a file that the caller uploaded. Receivers of messages with it cannot download it any more."""
    await files.delete(file_id, user.user_id)


@router.get("/v1/files/{file_id}/info", dependencies=_SHORT, responses={**_UNKNOWN, **TURN_RESPONSES})
async def file_info(file_id: str, user: CurrentUserDep, access: AccessDep) -> FileRead:
    """Tell what is known about a file that the caller uploaded or was sent."""
    return FileRead.of(await access.known(file_id, user.user_id))


@router.get("/v1/files/{file_id}", response_class=Response, responses={**CONTENT_ANSWERS, **_UNKNOWN})
@router.head("/v1/files/{file_id}", response_class=Response, responses={**CONTENT_ANSWERS, **_UNKNOWN})
async def file_content(
    *,
    file_id: str,
    request: Request,
    user: CurrentUserDep,
    readable: ReadableDep,
    files: FilesDep,
    downloads: DownloadsDep,
) -> Response:
    """Download a file, or a range of it; conditional requests are honoured."""
    return await content_of(await readable(file_id, user), request, user, files, downloads)

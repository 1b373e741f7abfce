"""The specification's own addresses, under any project name: mobileFileUpload and mobileFileDownload (section 5)."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from python_multipart.multipart import parse_options_header
from tlim_protocol.errors import ErrorCode
from tlim_protocol.examples import EXAMPLES
from tlim_runtime.errors import LegacyRoute, problem_responses

from file_api.dependencies import AdmissionDep, DownloadsDep, FilesDep, LegacyUserDep, ReadableDep
from file_api.download.content import content_of
from file_api.endpoints import BINARY, CONTENT_ANSWERS, TOO_LARGE, UPLOAD_BODY
from file_api.schemas import LegacyFileId, LegacyRefusal
from file_api.upload.forms import reading

router = APIRouter(
    prefix="/{project_name}/upload",
    route_class=LegacyRoute,
    tags=["specification"],
    responses=problem_responses(ErrorCode.UNAVAILABLE, statuses=(401,)),
)

_NEVER = re.compile(rb"0(\.0*)?")  # a quality of zero: RFC 9110 section 12.4.2

_REFUSAL = LegacyRefusal.model_json_schema()
_UPLOADED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file id, or a refusal, which is always JSON",
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": EXAMPLES["file_id"][0]},
            "application/json": {"schema": {"anyOf": [LegacyFileId.model_json_schema(mode="serialization"), _REFUSAL]}},
        },
    },
    **TOO_LARGE,
    **problem_responses(ErrorCode.TOO_MANY_REQUESTS),
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    **CONTENT_ANSWERS,
    200: {
        "description": "The file, or a refusal, which is JSON without an ETag",
        "content": {"*/*": BINARY, "application/json": {"schema": {"anyOf": [_REFUSAL, {"description": "the file"}]}}},
    },
}


@router.post("/mobileFileUpload", response_class=Response, openapi_extra=UPLOAD_BODY, responses=_UPLOADED)
async def mobile_file_upload(
    project_name: str, request: Request, user: LegacyUserDep, files: FilesDep, admission: AdmissionDep
) -> Response:
    """Upload a file; answers its id as plain text, or as JSON to a client that accepts it."""
    del project_name  # old clients have it in their addresses; it means nothing here
    with admission.one_more(user.user_id):
        async with reading(request) as upload:
            file = await files.upload(user.user_id, upload)
    if _accepts_json(request):
        return JSONResponse(LegacyFileId(file_id=file.file_id).model_dump(by_alias=True))
    return PlainTextResponse(file.file_id)


@router.get("/mobileFileDownload", response_class=Response, responses=_CONTENT)
@router.head("/mobileFileDownload", response_class=Response, responses=_CONTENT)
async def mobile_file_download(
    *,
    project_name: str,
    request: Request,
    user: LegacyUserDep,
    readable: ReadableDep,
    files: FilesDep,
    downloads: DownloadsDep,
    file_id: Annotated[str, Query(alias="fileId")] = "",
) -> Response:
    """Download a file, or a range of it; conditional requests are honoured."""
    del project_name
    return await content_of(await readable(file_id, user), request, user, files, downloads)


def _accepts_json(request: Request) -> bool:
    ranges = map(parse_options_header, ",".join(request.headers.getlist("accept")).split(","))
    return any(kind == b"application/json" and not _NEVER.fullmatch(more.get(b"q", b"1")) for kind, more in ranges)

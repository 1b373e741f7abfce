"""The door to thumbnails."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from tlim_protocol.errors import ErrorCode
from tlim_runtime.errors import problem_responses
from tlim_runtime.turns import TURN_RESPONSES

from file_api.dependencies import CurrentUserDep, PreviewsDep, ReadableDep
from file_api.download.ranges import Validators, is_not_modified
from file_api.inspect.inspection import MAX_INSPECTED_BYTES, MAX_PIXELS, ThumbnailSize

_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The thumbnail", "content": {"image/jpeg": _PICTURE, "image/png": _PICTURE}},
    304: {"description": "Not modified"},
    **problem_responses(ErrorCode.FILE_UNKNOWN, ErrorCode.FIELD_INVALID),
    **TURN_RESPONSES,
}
_ANSWERS[422]["description"] += (
    f". Also for a file that has no thumbnail (`field` is `file_id`): it is no JPEG, PNG, GIF or WebP, is damaged,"
    f" or has more than {MAX_PIXELS} pixels or {MAX_INSPECTED_BYTES} bytes"
)

router = APIRouter(tags=["files"], responses=problem_responses(ErrorCode.UNAVAILABLE, statuses=(401,)))


@router.get("/v1/files/{file_id}/thumbnail", response_class=Response, responses=_ANSWERS)
async def thumbnail(
    *,
    file_id: str,
    request: Request,
    user: CurrentUserDep,
    readable: ReadableDep,
    previews: PreviewsDep,
    size: Annotated[ThumbnailSize, Query(description="the longest side in pixels")] = ThumbnailSize.MEDIUM,
) -> Response:
    """Show an image small, upright, without its metadata, and never enlarged. Users who may download it may see it."""
    file = await readable(file_id, user)
    current = Validators(etag=f'"{file.sha256}-{size.value}"', modified=file.stored_at)
    headers = {"ETag": current.etag, "Last-Modified": current.last_modified, "Cache-Control": "private, no-cache"}
    if is_not_modified(request.headers, current):
        return Response(status_code=304, headers=headers)
    picture = await previews.thumbnail(file, size, user.user_id)
    return Response(
        picture.data, media_type=picture.media_type, headers={**headers, "X-Content-Type-Options": "nosniff"}
    )

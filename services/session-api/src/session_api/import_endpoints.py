"""Importing files of users over the modern API: POST /v1/users/import, scope `admin`."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.exceptions import HTTPException
from tlim_protocol.errors import ErrorCode
from tlim_runtime.auth import admin_user
from tlim_runtime.bodies import read_body
from tlim_runtime.errors import problem_responses

from session_api.dependencies import AdminDep, ImportsDep
from session_api.schemas import ImportRead
from session_api.user_files import read_csv, read_json

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Room for 50,000 users whose ids, names and passwords have 100 bytes each."""

FILE_S = 60.0
"""How long a whole file may take to arrive: 16 MiB at 4 Mbit/s take 34 s."""

_READERS = {"text/csv": read_csv, "application/json": read_json}

_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": "user_id,name\r\nalice,爱丽丝\r\n"},
            "application/json": {
                "schema": {
                    "type": "array",
                    "maxItems": 50_000,
                    "items": {
                        "type": "object",
                        "required": ["user_id"],
                        "properties": {name: {"type": ["string", "null"]} for name in ("user_id", "name", "password")},
                    },
                }
            },
        },
    }
}

router = APIRouter(
    prefix="/v1/users/import", tags=["users"], dependencies=[Depends(admin_user)], max_body_size=MAX_FILE_BYTES
)


@router.post(
    "",
    openapi_extra=_FILE,
    responses=problem_responses(
        ErrorCode.FIELD_INVALID,
        ErrorCode.NOT_ALLOWED,
        ErrorCode.UNAVAILABLE,
        ErrorCode.JSON_INVALID,
        ErrorCode.NOT_AN_ARRAY,
        statuses=(401, 408, 409, 413, 415),
    ),
)
async def import_file(
    request: Request,
    admin: AdminDep,
    imports: ImportsDep,
    reset_passwords: Annotated[
        bool, Query(description="also give existing accounts the file's passwords; otherwise they keep their own")
    ] = False,
) -> ImportRead:
    """Import a file of users, CSV or JSON; the same file again changes nothing.

    Good rows take effect together; the answer names the bad rows. A user without a name keeps the present name.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _READERS:
        raise HTTPException(415, "users are imported as text/csv or application/json")
    file = await asyncio.to_thread(_READERS[media_type], await read_body(request, FILE_S))
    return ImportRead.of(await imports.run(admin, file, reset_passwords=reset_passwords))

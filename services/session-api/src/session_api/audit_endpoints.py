"""The audit log over the modern API: read by administrators under /v1/audit."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import AuditAction
from tlim_runtime.auth import admin_user
from tlim_runtime.errors import problem_responses

from session_api.dependencies import AuditDep
from session_api.paging import Cursor, PageSize, read_cursor, read_number, write_cursor
from session_api.schemas import AuditPage, AuditRead
from session_api.users_service import user_id

router = APIRouter(prefix="/v1/audit", tags=["audit"], dependencies=[Depends(admin_user)])


@router.get(
    "",
    responses=problem_responses(
        ErrorCode.FIELD_INVALID, ErrorCode.NOT_ALLOWED, ErrorCode.USER_UNKNOWN, ErrorCode.UNAVAILABLE, statuses=(401,)
    ),
)
async def list_audit(
    audit: AuditDep,
    actor: Annotated[str | None, Query(description="only what this administrator did")] = None,
    action: Annotated[AuditAction | None, Query(description="only this kind of action")] = None,
    cursor: Cursor = None,
    limit: PageSize = 50,
) -> AuditPage:
    """List what administrators did, newest first."""
    before = None if cursor is None else read_number(read_cursor(cursor), digits=18)
    found = await audit.newest(before, limit + 1, None if actor is None else user_id(actor), action)
    more = write_cursor(str(found[limit - 1].id)) if len(found) > limit else None
    return AuditPage(items=[AuditRead.of(one) for one in found[:limit]], next_cursor=more)

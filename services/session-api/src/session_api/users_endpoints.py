"""The users directory over the modern API: server-to-server under /v1/users, scope `admin`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from tlim_protocol.errors import ErrorCode
from tlim_runtime.auth import TokenFirstRoute, admin_user
from tlim_runtime.errors import PROBLEM_JSON, problem_responses

from session_api.dependencies import AdminDep, DeactivationDep, UsersDep
from session_api.endpoints import MAX_BODY_BYTES
from session_api.errors import import_problem_schema
from session_api.paging import Cursor, PageSize, read_cursor, write_cursor
from session_api.schemas import UserPage, UserPut, UserRead, UsersImport, UsersImported
from session_api.users_service import Person

router = APIRouter(
    prefix="/v1/users",
    tags=["users"],
    dependencies=[Depends(admin_user)],
    route_class=TokenFirstRoute,
    max_body_size=MAX_BODY_BYTES,
)

_ALWAYS = (ErrorCode.FIELD_INVALID, ErrorCode.NOT_ALLOWED, ErrorCode.UNAVAILABLE)
_ROWS_REFUSED: dict[int | str, dict[str, Any]] = {
    422: {
        "description": "Some rows are wrong; nobody was imported",
        "content": {PROBLEM_JSON: {"schema": import_problem_schema()}},
    }
}


@router.put(
    "/{user_id}",
    responses=problem_responses(*_ALWAYS, ErrorCode.JSON_INVALID, ErrorCode.USER_UNKNOWN, statuses=(401, 413)),
)
async def put_user(admin: AdminDep, users: UsersDep, user_id: str, user: UserPut) -> UserRead:
    """Create a user, rename them, or activate them again."""
    return UserRead.of(await users.put(admin, Person(user_id, user.name)))


@router.post("", responses=problem_responses(*_ALWAYS, ErrorCode.JSON_INVALID, statuses=(401, 413)) | _ROWS_REFUSED)
async def import_users(admin: AdminDep, users: UsersDep, people: UsersImport) -> UsersImported:
    """Import many users, all or none: an answer of 422 names every row that is wrong."""
    done = await users.put_many(admin, [Person(row.user_id, row.name) for row in people.users])
    return UsersImported(created=done.created, updated=done.updated)


@router.get("", responses=problem_responses(*_ALWAYS, statuses=(401,)))
async def list_users(
    users: UsersDep,
    prefix: Annotated[str, Query(max_length=128, description="start of an id or a name, in any case")] = "",
    cursor: Cursor = None,
    limit: PageSize = 50,
) -> UserPage:
    """List users in the order of their ids, deactivated ones too."""
    found = await users.search(prefix, "" if cursor is None else read_cursor(cursor), limit + 1)
    more = write_cursor(found[limit - 1].user_id) if len(found) > limit else None
    return UserPage(items=[UserRead.of(one) for one in found[:limit]], next_cursor=more)


@router.delete(
    "/{user_id}", status_code=204, responses=problem_responses(*_ALWAYS, ErrorCode.USER_UNKNOWN, statuses=(401,))
)
async def deactivate_user(admin: AdminDep, deactivation: DeactivationDep, user_id: str) -> None:
    """Deactivate a user: they are no longer a known user. Their messages and memberships stay. Again is no error.

    Where this service makes XMPP accounts, the account gets a password that nobody knows, and its sessions end. Tokens
    of the user are refused within seconds.
    """
    await deactivation.run(admin, user_id)

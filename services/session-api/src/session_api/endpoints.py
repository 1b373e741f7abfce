"""Sessions over the modern API: REST under /v1/sessions."""

from typing import Annotated

from fastapi import APIRouter, Header, Response
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_runtime.auth import TokenFirstRoute
from tlim_runtime.errors import problem_responses
from tlim_runtime.turns import IN_TURN, TURN_RESPONSES

from session_api.dependencies import IDEMPOTENCY_KEY, CallerDep, IdempotencyKeyDep, SessionsDep
from session_api.edits import Edit, NewSession
from session_api.models import Session
from session_api.paging import Cursor, PageSize, read_cursor, read_number, write_cursor
from session_api.schemas import (
    SessionCreate,
    SessionPage,
    SessionRead,
    SessionSummary,
    SessionUpdate,
    SubscriberPage,
    SubscriberRead,
)

MAX_BODY_BYTES = 4 * 1024 * 1024
"""10,000 subscribers as the specification writes them are 1 MB, or 3 MB where every character is escaped."""

IfMatch = Annotated[str | None, Header(description='the ETag that was read, as `"7"`; another version there: 412')]

router = APIRouter(
    prefix="/v1/sessions",
    tags=["sessions"],
    dependencies=[IN_TURN],
    responses=TURN_RESPONSES,
    route_class=TokenFirstRoute,
    max_body_size=MAX_BODY_BYTES,
)

_ALWAYS = (ErrorCode.FIELD_INVALID, ErrorCode.UNAVAILABLE)
_CHANGES = (*_ALWAYS, ErrorCode.USER_UNKNOWN, ErrorCode.SESSION_UNKNOWN, ErrorCode.NOT_ALLOWED)


@router.post(
    "",
    status_code=201,
    openapi_extra={"parameters": [IDEMPOTENCY_KEY]},
    responses=problem_responses(
        *_ALWAYS,
        ErrorCode.JSON_INVALID,
        ErrorCode.SESSION_TYPE_INVALID,
        ErrorCode.SESSION_NAME_EMPTY,
        ErrorCode.SESSION_USER_UNKNOWN,
        ErrorCode.USER_UNKNOWN,
        statuses=(401, 413),
    ),
)
async def create_session(
    caller: CallerDep, sessions: SessionsDep, new: SessionCreate, key: IdempotencyKeyDep, response: Response
) -> SessionRead:
    """Create a session of the caller and the subscribers that are known."""
    view = await sessions.create(caller, NewSession(new.session_type, new.subscribers, new.session_name), key)
    response.headers["Location"] = f"/v1/sessions/{view.session.session_id}"
    response.headers["ETag"] = _etag(view.session)
    return SessionRead.of(view)


@router.get("", responses=problem_responses(*_ALWAYS, statuses=(401,)))
async def list_sessions(
    caller: CallerDep, sessions: SessionsDep, cursor: Cursor = None, limit: PageSize = 50
) -> SessionPage:
    """List the sessions the caller is in, newest first."""
    found = await sessions.mine(caller, None if cursor is None else _read_place(cursor), limit + 1)
    more = write_cursor(_place(found[limit - 1])) if len(found) > limit else None
    return SessionPage(items=[SessionSummary.summary_of(one) for one in found[:limit]], next_cursor=more)


@router.get("/{session_id}", responses=problem_responses(*_ALWAYS, ErrorCode.SESSION_UNKNOWN, statuses=(401,)))
async def read_session(caller: CallerDep, sessions: SessionsDep, session_id: str, response: Response) -> SessionRead:
    """Read a session the caller is in, with its subscribers."""
    view = await sessions.get(caller, session_id)
    response.headers["ETag"] = _etag(view.session)
    return SessionRead.of(view)


@router.get(
    "/{session_id}/subscribers", responses=problem_responses(*_ALWAYS, ErrorCode.SESSION_UNKNOWN, statuses=(401,))
)
async def list_subscribers(
    caller: CallerDep, sessions: SessionsDep, session_id: str, cursor: Cursor = None, limit: PageSize = 50
) -> SubscriberPage:
    """List who is in a session of the caller's, in the order they came: for groups too large to read at once."""
    after = (0, 0) if cursor is None else _read_two(cursor)
    found = await sessions.people(caller, session_id, after, limit + 1)
    items = [SubscriberRead(user_id=one.user_id, name=name, joined_at=one.joined_at) for one, name in found[:limit]]
    last = found[limit - 1][0] if len(found) > limit else None
    more = None if last is None else write_cursor(f"{last.added_version}:{last.position}")
    return SubscriberPage(items=items, next_cursor=more)


@router.patch(
    "/{session_id}",
    responses=problem_responses(
        *_CHANGES, ErrorCode.JSON_INVALID, ErrorCode.SESSION_NAME_EMPTY, statuses=(401, 412, 413)
    ),
)
async def update_session(
    *,
    caller: CallerDep,
    sessions: SessionsDep,
    session_id: str,
    update: SessionUpdate,
    response: Response,
    if_match: IfMatch = None,
) -> SessionRead:
    """Rename a session, add and remove subscribers, as one step; without If-Match on whatever version there is."""
    edit = Edit(update.session_name, update.add, update.remove, _read_version(if_match))
    view = await sessions.edit(caller, session_id, edit)
    response.headers["ETag"] = _etag(view.session)
    return SessionRead.of(view)


@router.delete("/{session_id}", status_code=204, responses=problem_responses(*_CHANGES, statuses=(401, 412)))
async def delete_session(caller: CallerDep, sessions: SessionsDep, session_id: str, if_match: IfMatch = None) -> None:
    """Delete a session for everybody; its history stays readable to those who were in it."""
    await sessions.delete(caller, session_id, _read_version(if_match))


def _etag(session: Session) -> str:
    return f'"{session.version}"'


def _read_version(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix('"').removesuffix('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise TlimError(ErrorCode.FIELD_INVALID, 'If-Match is one version in quotes, as "7", or *', field="If-Match")
    return int(digits)


def _place(session: Session) -> str:
    return f"{session.created_at}:{session.session_id}"


def _read_place(cursor: str) -> tuple[int, str]:
    created_at, _, session_id = read_cursor(cursor).partition(":")
    return read_number(created_at, digits=18), session_id


def _read_two(cursor: str) -> tuple[int, int]:
    version, _, position = read_cursor(cursor).partition(":")
    return read_number(version, digits=9), read_number(position, digits=9)

"""The operations page and its data (scope admin)."""

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import MAX_ID
from tlim_runtime.auth import CurrentUser, admin_user
from tlim_runtime.errors import problem_responses

from message_store.operate.schemas import DeadLetter, DeadLetters, MessageWay, Snapshot
from message_store.operate.watch import Watch

router = APIRouter(prefix="/v1/operations", tags=["operations"], dependencies=[Depends(admin_user)])
page = APIRouter(include_in_schema=False)

_MAX_SEQ = 2**63 - 1
_REFUSALS = problem_responses(ErrorCode.FIELD_INVALID, ErrorCode.NOT_ALLOWED, ErrorCode.UNAVAILABLE, statuses=(401,))

_FILES = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
_HEADERS = {
    # nothing from elsewhere, nothing inline: a text that is shown can never run
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def _watch(request: Request) -> Watch:
    watch: Watch = request.app.state.watch
    return watch


WatchDep = Annotated[Watch, Depends(_watch)]


@router.get("", responses=_REFUSALS)
async def read_operations(watch: WatchDep) -> Snapshot:
    """Return what all instances of all services say of themselves; everybody who asks at once gets the same."""
    return await watch.snapshot()


@router.get("/messages/{msg_id:path}", responses=_REFUSALS)
async def follow_message(
    msg_id: Annotated[str, Path(min_length=1, max_length=MAX_ID)], *, watch: WatchDep
) -> MessageWay:
    """Return the way of a message through all services, without its text.

    The log knows it for ever. The instances remember the last 20,000 steps each, until they are restarted.
    """
    return await watch.way(msg_id)


@router.get("/dead-letters", responses=_REFUSALS)
async def list_dead_letters(
    *,
    watch: WatchDep,
    before: Annotated[int | None, Query(ge=1, le=_MAX_SEQ, description="`next_before` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> DeadLetters:
    """List the messages that could not be processed, with their reasons, newest first."""
    return await watch.dead_letters(before, limit)


@router.post("/dead-letters/{seq}/redrive", responses=problem_responses(
    ErrorCode.FIELD_INVALID, ErrorCode.NOT_ALLOWED, ErrorCode.MSG_ID_UNKNOWN, ErrorCode.UNAVAILABLE, statuses=(401,)
))  # fmt: skip
async def redrive_dead_letter(
    seq: Annotated[int, Path(ge=1, le=_MAX_SEQ)],
    *,
    request: Request,
    watch: WatchDep,
    admin: Annotated[CurrentUser, Depends(admin_user)],
) -> DeadLetter:
    """Send a dead letter its way again, after its cause was mended. It is in the audit log."""
    letter = await watch.redrive(seq, admin.user_id, request.state.request_id)
    if letter is None:
        raise TlimError(ErrorCode.MSG_ID_UNKNOWN, "there is no such dead letter", field="seq")
    return letter


@page.get("/operations")
async def show_page() -> Response:
    """Return the page. It holds no data: it asks for a token, and then for the data above."""
    return _file("")


@page.get("/operations/{name}")
async def show_part(name: str) -> Response:
    """Return its script or style."""
    return _file(name)


def _file(name: str) -> Response:
    if name not in _FILES:
        return Response(status_code=404)
    file, media_type = _FILES[name]
    content = (files("message_store.operate") / "page" / file).read_bytes()
    return Response(content, media_type=media_type, headers=_HEADERS)

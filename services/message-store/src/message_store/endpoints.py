"""The HTTP door: history (protocol.md section 7)."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from tlim_protocol.errors import ErrorCode
from tlim_runtime.errors import problem_responses

from message_store.dependencies import CurrentUserDep, ReaderDep
from message_store.history_service import read_page
from message_store.schemas import HistoryPage

router = APIRouter(prefix="/v1/conversations", tags=["history"])

_MAX_SEQ = 2**63 - 1  # PostgreSQL's bigint

Seq = Annotated[int | None, Query(ge=0, le=_MAX_SEQ)]


@router.get(
    "/{peer}/messages",
    responses=problem_responses(
        ErrorCode.SESSION_UNKNOWN, ErrorCode.FIELD_INVALID, ErrorCode.UNAVAILABLE, statuses=(401,)
    ),
)
async def read_messages(
    peer: Annotated[str, Path(description="user id of the other person")],
    *,
    user: CurrentUserDep,
    reader: ReaderDep,
    before: Seq = None,
    after: Seq = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> HistoryPage:
    """Return my conversation with somebody, newest first (page on with `before`), or oldest first with `after`."""
    return HistoryPage.of(await read_page(reader, user.user_id, peer, before=before, after=after, limit=limit))

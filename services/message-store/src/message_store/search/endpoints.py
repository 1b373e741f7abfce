"""The HTTP door of search (docs/wire-protocol.md, "Modern HTTP")."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from tlim_protocol.errors import ErrorCode
from tlim_protocol.identity import MAX_ID
from tlim_runtime.errors import problem_responses
from tlim_runtime.turns import IN_TURN, TURN_RESPONSES

from message_store.dependencies import ConnectionDep, CurrentUserDep
from message_store.reading.answers import PageAnswer
from message_store.search.answers import search_page
from message_store.search.repository import SearchReader
from message_store.search.schemas import SearchPage
from message_store.search.service import Question, checked, search

router = APIRouter(prefix="/v1/search", tags=["search"], dependencies=[IN_TURN], responses=TURN_RESPONSES)

_MAX_BIGINT = 2**63 - 1  # PostgreSQL's
_MAX_TIME = 2**53  # epoch milliseconds, as JSON's readers take them

Time = Annotated[int | None, Query(ge=0, le=_MAX_TIME, description="epoch milliseconds on the server's clock")]


async def search_reader(connection: ConnectionDep) -> SearchReader:
    """Give search's repository on the request's connection."""
    return SearchReader(connection)


@router.get(
    "",
    response_model=SearchPage,
    responses=problem_responses(
        ErrorCode.FIELD_INVALID, ErrorCode.MSG_TYPE_INVALID, ErrorCode.UNAVAILABLE, statuses=(401,)
    ),
)
async def search_messages(
    q: Annotated[str, Query(min_length=1, max_length=200, description="part of a text; case and width do not matter")],
    *,
    user: CurrentUserDep,
    reader: Annotated[SearchReader, Depends(search_reader)],
    conversation: Annotated[str | None, Query(max_length=MAX_ID, description="a user id or a session id")] = None,
    sender: Annotated[str | None, Query(max_length=MAX_ID, description="a user id")] = None,
    msg_type: Annotated[str | None, Query(max_length=20, description="one of the types of chat")] = None,
    since: Time = None,
    until: Time = None,
    before: Annotated[int | None, Query(ge=0, le=_MAX_BIGINT, description="`next` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PageAnswer:
    """Search the messages of my conversations for a part of their text, newest first."""
    question = checked(Question(q, conversation, sender, msg_type, since, until, before))
    started = time.monotonic()
    hits = await search(reader, user.user_id, question, limit=limit, elapsed=lambda: time.monotonic() - started)
    return PageAnswer(search_page(user.user_id, hits))

"""The HTTP door of reading (docs/wire-protocol.md, "Modern HTTP")."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from tlim_protocol.errors import ErrorCode
from tlim_protocol.identity import MAX_ID
from tlim_runtime.errors import problem_responses
from tlim_runtime.turns import IN_TURN, TURN_RESPONSES

from message_store.dependencies import CurrentUserDep
from message_store.reading.answers import PageAnswer, conversation_page, history_page, message_details, sync_page
from message_store.reading.conversations_service import read_conversations
from message_store.reading.dependencies import ConversationsReaderDep, HistoryReaderDep, LedgerReaderDep, SyncReaderDep
from message_store.reading.history_service import read_page
from message_store.reading.ledger_service import ReadState, read_ledger
from message_store.reading.schemas import ConversationPage, HistoryPage, MessageDetails, SyncPage
from message_store.reading.sync_service import read_changes

router = APIRouter(prefix="/v1", tags=["reading"], dependencies=[IN_TURN], responses=TURN_RESPONSES)

_MAX_SEQ = 2**63 - 1  # PostgreSQL's bigint

_ANY = (ErrorCode.FIELD_INVALID, ErrorCode.UNAVAILABLE)

Seq = Annotated[int | None, Query(ge=0, le=_MAX_SEQ)]


@router.get("/conversations", response_model=ConversationPage, responses=problem_responses(*_ANY, statuses=(401,)))
async def list_conversations(
    *,
    user: CurrentUserDep,
    reader: ConversationsReaderDep,
    cursor: Annotated[
        str | None, Query(pattern="^[0-9]{1,18}$", description="`next_cursor` of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PageAnswer:
    """Return my conversations, the newest first.

    A session that I left is shown as it was then, without its name when the record of my leaving is no longer kept.
    A page may hold fewer conversations than asked for, when their last messages are large.
    """
    before = None if cursor is None else int(cursor)
    page = await read_conversations(reader, user.user_id, before=before, limit=limit)
    return PageAnswer(conversation_page(user.user_id, page))


@router.get(
    "/conversations/{conversation}/messages",
    response_model=HistoryPage,
    responses=problem_responses(ErrorCode.SESSION_UNKNOWN, *_ANY, statuses=(401,)),
)
async def read_messages(
    conversation: Annotated[str, Path(description="user id of the other person, or session_id")],
    *,
    user: CurrentUserDep,
    reader: HistoryReaderDep,
    before: Seq = None,
    after: Seq = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PageAnswer:
    """Return messages of a conversation of mine: newest first (next page with `before`), or oldest first with `after`.

    Of a group I see only what was written while I was in it. A page may hold fewer messages than asked for, when they
    are large: `more` tells whether to go on.
    """
    page = await read_page(reader, user.user_id, conversation, before=before, after=after, limit=limit)
    return PageAnswer(history_page(page))


@router.get(
    "/sync",
    response_model=SyncPage,
    responses=problem_responses(ErrorCode.FIELD_INVALID, ErrorCode.UNAVAILABLE, statuses=(401,)),
)
async def sync(
    *,
    user: CurrentUserDep,
    reader: SyncReaderDep,
    after: Annotated[int, Query(ge=0, le=_MAX_SEQ, description="`next` of the last page; 0: from the beginning")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> PageAnswer:
    """Return everything that concerns me after a cursor: messages, receipts, recalls and notices, oldest first.

    It includes what I sent, for my other devices. Nothing is ever inserted before a cursor that was handed out. A new
    device begins with `sync_from` of the first page of `GET /v1/conversations`.
    """
    return PageAnswer(sync_page(user.user_id, await read_changes(reader, user.user_id, after=after, limit=limit)))


@router.get(
    "/messages/{msg_id:path}",
    response_model=MessageDetails,
    responses=problem_responses(ErrorCode.MSG_ID_UNKNOWN, *_ANY, statuses=(401,)),
)
async def read_message(
    msg_id: Annotated[str, Path(min_length=1, max_length=MAX_ID)],
    *,
    user: CurrentUserDep,
    reader: LedgerReaderDep,
    sender: Annotated[str | None, Query(description="user id; two senders may use the same msg_id")] = None,
    state: Annotated[ReadState | None, Query(description="only these receivers")] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> PageAnswer:
    """Return a message that I may see, and who has received and read it.

    Without `sender`, it is the newest message with that msg_id.
    """
    ledger = await read_ledger(reader, user.user_id, msg_id, sender=sender, state=state, after=cursor, limit=limit)
    return PageAnswer(message_details(user.user_id, ledger))

"""The HTTP shapes of what is read, as the OpenAPI document tells them; answers.py writes them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from message_store.reading.conversations_service import UNREAD_CAP, UNREAD_LOOKED_AT
from message_store.reading.sync_service import LogKind


class HistoryMessage(BaseModel):
    """A stored message: its seq, when it was stored, and the fields of the envelope under their wire names."""

    seq: int = Field(description="place in the record; rises within a conversation")
    stored_at: str = Field(description="epoch milliseconds on the server's clock")
    recalled: bool = Field(description="the sender took it back: a tombstone, its `body` is empty")
    compress: str = "0"
    encode: str = "1"
    encrypt: str = "0"
    version: str
    msg_from: str = Field(alias="from")
    msg_to: str | None = Field(alias="to")
    msg_id: str
    msg_type: str
    msg_time: str = Field(description="epoch milliseconds on the sender's clock")
    body: list[dict[str, Any]]


class HistoryPage(BaseModel):
    """A page of a conversation."""

    messages: list[HistoryMessage]
    next: int | None = Field(description="the `before` or `after` of the next page; null: there was nothing yet")
    more: bool = Field(description="whether the next page holds anything now")


class LogItem(HistoryMessage):
    """Anything of the log that concerns me: a message, a receipt, a recall, or a notice about a session."""

    kind: LogKind
    conversation: str = Field(description="user id of the other person, or session_id: the id under /v1/conversations")
    session_id: str | None = Field(description="null: between two people")


class SyncPage(BaseModel):
    """What concerns me after a cursor, in the order in which it was stored."""

    items: list[LogItem]
    next: int = Field(description="the `after` of the next request, now or later: keep it")
    more: bool = Field(description="whether the next page holds anything now")


class ConversationItem(BaseModel):
    """A conversation in my list."""

    conversation: str = Field(description="user id of the other person, or session_id: the id under /v1/conversations")
    session_id: str | None = Field(description="null: between two people")
    session_name: str | None = Field(description="null: between two people, or I left so long ago that it was removed")
    last: HistoryMessage | None = Field(description="the newest message that I may see; null: there is none")
    unread: int = Field(
        ge=0,
        le=UNREAD_CAP,
        description="messages of others after `read_seq`, without recalled ones; only the newest "
        f"{UNREAD_LOOKED_AT:,} messages of the conversation are counted",
    )
    unread_capped: bool = Field(description="there are more than `unread` says")
    read_seq: int = Field(description="the newest message that I reported as read; 0: none")
    left: bool = Field(description="I am not in it any more: it ends with my leaving")
    deleted: bool = Field(description="the session is deleted; if `left` is true: I left because it was deleted")


class ConversationPage(BaseModel):
    """One page of my conversations, newest first; `next_cursor` is null on the last one."""

    items: list[ConversationItem]
    next_cursor: str | None
    sync_from: int = Field(description="on the first page: a new device begins GET /v1/sync with it as `after`")


class ReceiptItem(BaseModel):
    """One receiver of a message: when they received and read it, on the server's clock; null: not yet."""

    user_id: str
    delivered_at: str | None = Field(description="epoch milliseconds")
    read_at: str | None = Field(description="epoch milliseconds")


class MessageDetails(LogItem):
    """A message with its ledger; `receipts` is a page, `next_cursor` is null on the last one."""

    kind: Literal[LogKind.MESSAGE]
    members: int = Field(description="number of receivers: the members of the conversation then, without the sender")
    delivered: int = Field(description="how many of them have received it")
    read: int = Field(description="how many of them have read it")
    receipts: list[ReceiptItem] = Field(description="in the order of user ids")
    next_cursor: str | None

"""The HTTP shapes of what is read: messages, and pages of them."""

from typing import Any, Literal, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field
from tlim_protocol.identity import is_direct
from tlim_protocol.notices import form_for

from message_store.models import Message
from message_store.notices import SERVER, in_the_name_of, receiver_of
from message_store.reading.conversations_service import UNREAD_CAP, UNREAD_LOOKED_AT, Overview, Overviews
from message_store.reading.history_service import Page
from message_store.reading.ledger_service import Ledger
from message_store.reading.sync_service import Changes, LogKind, conversation_name, kind_of


class HistoryMessage(BaseModel):
    """A stored message: its seq, when it was stored, and the fields of the envelope under their wire names."""

    model_config = ConfigDict(populate_by_name=True)

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

    @classmethod
    def of(cls, message: Message) -> Self:
        """Return the shape of a row."""
        return cls(
            seq=message.seq,
            stored_at=str(message.stored_at),
            recalled=message.recalled_at is not None,
            version=message.version,
            msg_from=message.sender,
            msg_to=receiver_of(message),
            msg_id=message.msg_id,
            msg_type=message.msg_type,
            msg_time=message.msg_time,
            body=message.body,
        )


class HistoryPage(BaseModel):
    """A page of a conversation."""

    messages: list[HistoryMessage]
    next: int | None = Field(description="the `before` or `after` of the next page; null: there was nothing yet")
    more: bool = Field(description="whether the next page holds anything now")

    @classmethod
    def of(cls, page: Page) -> Self:
        """Return the shape of a page."""
        return cls(messages=[HistoryMessage.of(message) for message in page.messages], next=page.next, more=page.more)


class ConversationName(TypedDict):
    """The conversation that a message belongs to, by the ids that the reader uses."""

    conversation: str
    session_id: str | None


def place_of(conversation_id: str, me: str) -> ConversationName:
    """Return the conversation as `me` knows it."""
    direct = is_direct(conversation_id)
    return ConversationName(
        conversation=conversation_name(conversation_id, me), session_id=None if direct else conversation_id
    )


class LogItem(HistoryMessage):
    """Anything of the log that concerns me: a message, a receipt, a recall, or a notice about a session."""

    kind: LogKind
    conversation: str = Field(description="user id of the other person, or session_id: the id under /v1/conversations")
    session_id: str | None = Field(description="null: between two people")

    @classmethod
    def seen_by(cls, me: str, message: Message) -> Self:
        """Return the shape of a row for a reader; a row of the server is from the user in whose name it is told."""
        fields, kind = HistoryMessage.of(message).model_dump(), kind_of(message)
        if message.sender == SERVER and message.body:
            fields["msg_from"] = in_the_name_of(message.body)
        if kind is LogKind.NOTICE:
            fields["body"] = [form_for(me, element) for element in message.body]
        return cls(**fields, **place_of(message.conversation_id, me), kind=kind)


class SyncPage(BaseModel):
    """What concerns me after a cursor, in the order in which it was stored."""

    items: list[LogItem]
    next: int = Field(description="the `after` of the next request, now or later: keep it")
    more: bool = Field(description="whether the next page holds anything now")

    @classmethod
    def of(cls, me: str, changes: Changes) -> Self:
        """Return the shape of a page for a reader."""
        return cls(items=[LogItem.seen_by(me, one) for one in changes.items], next=changes.next, more=changes.more)


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

    @classmethod
    def of(cls, me: str, overview: Overview) -> Self:
        """Return the shape of a conversation for a reader."""
        return cls(
            **place_of(overview.conversation_id, me),
            session_name=overview.name,
            last=None if overview.last is None else HistoryMessage.of(overview.last),
            unread=min(overview.unread, UNREAD_CAP),
            unread_capped=overview.unread > UNREAD_CAP,
            read_seq=overview.read_seq,
            left=overview.left,
            deleted=overview.deleted,
        )


class ConversationPage(BaseModel):
    """One page of my conversations, newest first; `next_cursor` is null on the last one."""

    items: list[ConversationItem]
    next_cursor: str | None
    sync_from: int = Field(description="on the first page: a new device begins GET /v1/sync with it as `after`")

    @classmethod
    def of(cls, me: str, page: Overviews) -> Self:
        """Return the shape of a page for a reader."""
        cursor = None if page.next is None else str(page.next)
        items = [ConversationItem.of(me, one) for one in page.overviews]
        return cls(items=items, next_cursor=cursor, sync_from=page.sync_from)


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

    @classmethod
    def told(cls, me: str, ledger: Ledger) -> Self:
        """Return the shape of a message and its receivers for a reader."""
        receipts = [
            ReceiptItem(user_id=line.user_id, delivered_at=_time(line.delivered_at), read_at=_time(line.read_at))
            for line in ledger.lines
        ]
        item = LogItem.seen_by(me, ledger.message).model_dump()
        return cls(**item, **ledger.counts._asdict(), receipts=receipts, next_cursor=ledger.next)


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else str(milliseconds)

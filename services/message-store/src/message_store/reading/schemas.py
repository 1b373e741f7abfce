"""The HTTP shapes of what is read: messages, and pages of them."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from message_store.models import Message
from message_store.reading.history_service import Page
from message_store.reading.sync_service import Changes, Kind, conversation_name, kind_of


class HistoryMessage(BaseModel):
    """A stored message: its place, when it was stored, and the fields of the envelope under their wire names."""

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
            msg_to=message.recipient,
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


class LogItem(HistoryMessage):
    """Anything of the log that concerns me: a message, a receipt, a recall, or a notice about a session."""

    kind: Kind
    conversation: str = Field(description="user id of the other person, or session_id: the id under /v1/conversations")

    @classmethod
    def seen_by(cls, me: str, message: Message) -> Self:
        """Return the shape of a row for a reader; a notice is from who did what it tells."""
        actor = message.sender or message.body[0].get("actor", "")
        fields = HistoryMessage.of(message).model_dump() | {"msg_from": actor}
        return cls(**fields, kind=kind_of(message), conversation=conversation_name(message.conversation_id, me))


class SyncPage(BaseModel):
    """What concerns me after a cursor, in the order in which it was stored."""

    items: list[LogItem]
    next: int = Field(description="the `after` of the next question, now or later: keep it")
    more: bool = Field(description="whether the next page holds anything now")

    @classmethod
    def of(cls, me: str, changes: Changes) -> Self:
        """Return the shape of a page for a reader."""
        return cls(items=[LogItem.seen_by(me, one) for one in changes.items], next=changes.next, more=changes.more)

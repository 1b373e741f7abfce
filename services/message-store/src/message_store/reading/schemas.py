"""The HTTP shapes of what is read: messages, and pages of them."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from message_store.models import Message
from message_store.reading.history_service import Page


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

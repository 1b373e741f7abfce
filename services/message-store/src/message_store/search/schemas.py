"""The HTTP shapes of search."""

from typing import Self

from pydantic import BaseModel, Field

from message_store.models import Message
from message_store.reading.schemas import HistoryMessage, place_of
from message_store.search.service import Hits


class Hit(HistoryMessage):
    """A message that was found, and where."""

    conversation: str = Field(description="user id of the other person, or session_id: the id under /v1/conversations")
    session_id: str | None = Field(description="null: between two people")

    @classmethod
    def found_by(cls, user_id: str, message: Message) -> Self:
        """Return the shape of a row for the user who searched."""
        return cls(**HistoryMessage.of(message).model_dump(), **place_of(message.conversation_id, user_id))


class SearchPage(BaseModel):
    """A page of what was found, newest first."""

    messages: list[Hit]
    next: int | None = Field(description="the `before` of the next page; null: there is none")
    more: bool = Field(
        description="whether there is a next page; where searching is slow, this one may hold few messages or none"
    )

    @classmethod
    def of(cls, user_id: str, hits: Hits) -> Self:
        """Return the shape of a page."""
        messages = [Hit.found_by(user_id, message) for message in hits.messages]
        return cls(messages=messages, next=hits.next, more=hits.next is not None)

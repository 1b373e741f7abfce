"""The HTTP shapes of search, as the OpenAPI document tells them; answers.py writes them."""

from pydantic import BaseModel, Field

from message_store.reading.schemas import HistoryMessage


class Hit(HistoryMessage):
    """A message that was found, and where."""

    conversation: str = Field(description="user id of the other person, or session_id: the id under /v1/conversations")
    session_id: str | None = Field(description="null: between two people")


class SearchPage(BaseModel):
    """A page of what was found, newest first."""

    messages: list[Hit]
    next: int | None = Field(description="the `before` of the next page; null: there is none")
    more: bool = Field(
        description="whether there is a next page; where searching is slow, this one may hold few messages or none"
    )

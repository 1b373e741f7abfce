"""HTTP answers of search: schemas.py has their shapes."""

from message_store.reading.answers import Shape, message_shape, place_of
from message_store.search.service import Hits


def search_page(me: str, hits: Hits) -> Shape:
    """Return a SearchPage for the user who searched."""
    messages = [{**message_shape(row), **place_of(row.conversation_id, me)} for row in hits.messages]
    return {"messages": messages, "next": hits.next, "more": hits.next is not None}

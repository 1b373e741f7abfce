"""The rules of reading history: whose conversation it is, and how one goes through it page by page."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import conversation_of_users, normalize_user_id

from message_store.models import Message


class Reader(Protocol):
    """Where messages are read (repository.Reader)."""

    async def messages_before(self, conversation_id: str, before: int | None, limit: int, /) -> Sequence[Message]:
        """Return up to `limit` messages older than `before` (None: from the end), newest first."""

    async def messages_after(self, conversation_id: str, after: int, limit: int, /) -> Sequence[Message]:
        """Return up to `limit` messages newer than `after`, oldest first."""


class Page(NamedTuple):
    """A page of history; `next` is the `before` or `after` that asks for what comes behind it."""

    messages: Sequence[Message]
    next: int | None
    more: bool


def conversation_with(me: str, peer: str) -> str:
    """Return the id of the conversation of `me` (normalised) with the user `peer`.

    A person only ever reaches conversations that have him in their id, so this is also what keeps strangers out.
    Raises TlimError(SESSION_UNKNOWN) for what cannot be a user id.
    """
    try:
        return conversation_of_users(me, normalize_user_id(peer))
    except TlimError:
        raise TlimError(ErrorCode.SESSION_UNKNOWN, "you have no such conversation", field="peer") from None


async def read_page(reader: Reader, me: str, peer: str, *, before: int | None, after: int | None, limit: int) -> Page:
    """Return a page of the conversation of `me` with `peer`: newest first, or oldest first behind the seq `after`.

    A conversation that nobody has begun is an empty page: it does not tell whether the peer exists. Raises
    TlimError(FIELD_INVALID) when both cursors are given.
    """
    if before is not None and after is not None:
        raise TlimError(ErrorCode.FIELD_INVALID, "give before or after, not both", field="after")
    conversation_id = conversation_with(me, peer)
    if after is not None:
        found = await reader.messages_after(conversation_id, after, limit + 1)
    else:
        found = await reader.messages_before(conversation_id, before, limit + 1)
    messages = found[:limit]
    last = messages[-1].seq if messages else after if after is not None else before
    return Page(messages, last, more=len(found) > limit)

"""The rules of reading history: which conversation the reader means, and how it is read page by page."""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import conversation_of_users, normalize_user_id

from message_store.reading.slice_repository import Slice
from message_store.values import ReadRow

_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # as session-api makes them


class HistoryTables(Protocol):
    """Where messages are read (history_repository.HistoryReader)."""

    async def conversations_of(self, user_id: str, conversation_ids: Collection[str], /) -> Collection[str]:
        """Return those that the user is or was in."""

    async def messages_before(self, user_id: str, conversation_id: str, before: int | None, limit: int, /) -> Slice:
        """Return up to `limit` messages older than `before` (None: from the end), newest first."""

    async def messages_after(self, user_id: str, conversation_id: str, after: int, limit: int, /) -> Slice:
        """Return up to `limit` messages newer than `after`, oldest first."""


class Page(NamedTuple):
    """A page of history; `next` is the `before` or `after` of the next page."""

    messages: Sequence[ReadRow]
    next: int | None
    more: bool


async def find_conversation(reader: HistoryTables, me: str, name: str) -> str:
    """Return the id of the conversation that `me` (normalised) calls `name`: a session_id, or the other's user id.

    If `me` never talked to that user, the conversation is empty: so the answer does not tell whether the user exists.
    Raises TlimError(SESSION_UNKNOWN) for a name that cannot be a user id. It raises the same for a session that `me`
    never was in, whether it exists or not.
    """
    unknown = TlimError(ErrorCode.SESSION_UNKNOWN, "you have no such conversation", field="conversation")
    try:
        direct = conversation_of_users(me, normalize_user_id(name))
    except TlimError:
        raise unknown from None
    mine = await reader.conversations_of(me, [name, direct])
    if name in mine:
        return name
    if direct not in mine and _SESSION_ID.fullmatch(name):
        raise unknown
    return direct


async def read_page(
    reader: HistoryTables, me: str, name: str, *, before: int | None, after: int | None, limit: int
) -> Page:
    """Return a page of the conversation that `me` calls `name`: newest first, or oldest first after the seq `after`.

    It holds only messages from the time when `me` was in it. Raises what `find_conversation` raises, and
    TlimError(FIELD_INVALID) when both cursors are given.
    """
    if before is not None and after is not None:
        raise TlimError(ErrorCode.FIELD_INVALID, "give before or after, not both", field="after")
    conversation_id = await find_conversation(reader, me, name)
    if after is not None:
        found = await reader.messages_after(me, conversation_id, after, limit)
    else:
        found = await reader.messages_before(me, conversation_id, before, limit)
    last = found.messages[-1].seq if found.messages else after if after is not None else before
    return Page(found.messages, last, found.more)

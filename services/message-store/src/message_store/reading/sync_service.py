"""The rules of sync: what each row of the log means to the user who catches up."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, assert_never

from tlim_protocol.identity import is_direct
from tlim_protocol.registry import REGISTRY, Effect, MsgType

from message_store.reading.slice_repository import Slice
from message_store.values import ReadRow


class LogKind(StrEnum):
    """What a row of the log is."""

    MESSAGE = "message"
    RECEIPT = "receipt"
    RECALL = "recall"
    NOTICE = "notice"


class SyncTables(Protocol):
    """Where the log is read (sync_repository.SyncReader)."""

    async def concerning(self, user_id: str, after: int, limit: int, /) -> Slice:
        """Return up to `limit` rows that concern the user after seq `after`, oldest first."""

    async def synced(self, user_id: str, after: int, following: int, /) -> None:
        """Note that a device of the user has asked with the cursor `after` and is given the cursor `following`."""


class Changes(NamedTuple):
    """A page of what concerns a user; `next` is the cursor of the next page."""

    items: Sequence[ReadRow]
    next: int
    more: bool


def kind_of(message: ReadRow) -> LogKind:
    """Return what a row is: a message, a receipt, a recall, or the server's notice about a session."""
    match REGISTRY[MsgType(message.msg_type)].effect:
        case Effect.CHAT:
            return LogKind.MESSAGE
        case Effect.RECEIPT:
            return LogKind.RECEIPT
        case Effect.RECALL:
            return LogKind.RECALL
        case Effect.NOTICE | Effect.AUDIT:  # AUDIT tells what happened to files, and is never stored here
            return LogKind.NOTICE
        case other:
            assert_never(other)


def conversation_name(conversation_id: str, me: str) -> str:
    """Return what `me` calls a conversation: the other person's user id, or the session_id."""
    if not is_direct(conversation_id):
        return conversation_id
    _, one, other = conversation_id.split(":")
    return other if one == me else one


async def read_changes(reader: SyncTables, me: str, *, after: int, limit: int) -> Changes:
    """Return up to `limit` things that concern `me` (normalised) after the cursor `after`, oldest first.

    A device that asks with the cursor of a page has that page: it is not sent again at the next login over XMPP.
    """
    found = await reader.concerning(me, after, limit)
    following = found.messages[-1].seq if found.messages else after
    await reader.synced(me, after, following)
    return Changes(found.messages, following, found.more)

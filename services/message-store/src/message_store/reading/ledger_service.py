"""The rules of the ledger: which message the reader means, and who has received and read it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from tlim_protocol.characters import is_plain_text
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.identity import normalize_user_id

from message_store.reading.ledger_repository import Counts, LedgerLine
from message_store.values import ReadRow


class ReadState(StrEnum):
    """Which receivers of a message are asked for."""

    READ = "read"
    UNREAD = "unread"
    UNDELIVERED = "undelivered"


class LedgerTables(Protocol):
    """Where the ledger is read (ledger_repository.LedgerReader)."""

    async def find_message(self, user_id: str, msg_id: str, sender: str | None, /) -> ReadRow | None:
        """Return the newest message with that msg_id that the user may see."""

    async def counts(self, message: ReadRow, /) -> Counts:
        """Return how many have received and read it."""

    async def lines(self, message: ReadRow, state: str | None, after: str, limit: int, /) -> Sequence[LedgerLine]:
        """Return up to `limit` receivers after a user id, in the order of their ids."""


class Ledger(NamedTuple):
    """A message and a page of its receivers; `next` is the user id after which the next page begins."""

    message: ReadRow
    counts: Counts
    lines: Sequence[LedgerLine]
    next: str | None


async def read_ledger(
    reader: LedgerTables,
    me: str,
    msg_id: str,
    *,
    sender: str | None,
    state: ReadState | None,
    after: str | None,
    limit: int,
) -> Ledger:
    """Return a message that `me` (normalised) may see, and up to `limit` of its receivers after the user id `after`.

    Without a sender it is the newest message with that msg_id. Raises TlimError(MSG_ID_UNKNOWN) when `me` may see none,
    and TlimError(FIELD_INVALID) for a sender or cursor that cannot be a user id.
    """
    author = None if sender is None else _user_id(sender, "sender")
    behind = "" if after is None else _user_id(after, "cursor")
    message = await reader.find_message(me, msg_id, author) if is_plain_text(msg_id) else None
    if message is None:
        raise TlimError(ErrorCode.MSG_ID_UNKNOWN, "there is no such message for you", field="msg_id")
    lines = await reader.lines(message, state, behind, limit + 1)
    page = lines[:limit]
    return Ledger(message, await reader.counts(message), page, page[-1].user_id if len(lines) > limit else None)


def _user_id(raw: str, field: str) -> str:
    try:
        return normalize_user_id(raw)
    except TlimError as error:
        raise TlimError(error.code, error.detail, field=field) from None

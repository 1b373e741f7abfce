"""The rules of the list of conversations: what the list shows of each, to members and to those who left."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from message_store.reading.conversations_repository import Entry
from message_store.values import ReadRow

UNREAD_CAP = 1000
"""Counting of unread messages stops here: for a reader, 1,000 and 50,000 mean the same."""

UNREAD_LOOKED_AT = 5000
"""Unread messages are counted among this many newest messages of a conversation. Without this limit, a sender who wrote
a million messages and reported nothing as read made the search for unread ones take 0.25 s."""

FROM_THE_START = 2**63 - 1


class ConversationTables(Protocol):
    """Where conversations are read (conversations_repository.ConversationsReader)."""

    async def newest_seq(self) -> int:
        """Return the newest seq of the log."""

    async def entries(
        self, user_id: str, before: int, limit: int, /, *, count_to: int, look_at: int
    ) -> tuple[Sequence[Entry], bool]:
        """Return conversations whose place is before a seq, the newest first, and whether more follow."""

    async def messages(self, seqs: Sequence[int], /) -> Mapping[int, ReadRow]:
        """Return the rows of the log with these seqs."""


class Overview(NamedTuple):
    """A conversation in a reader's list.

    After the reader has left, `name` and `deleted` are as they were then, or empty if that is no longer kept.
    """

    conversation_id: str
    name: str | None
    last: ReadRow | None
    unread: int
    read_seq: int
    left: bool
    deleted: bool


class Overviews(NamedTuple):
    """A page of the list; `next` is where the next page begins, None at the end."""

    overviews: list[Overview]
    next: int | None
    sync_from: int


async def read_conversations(reader: ConversationTables, me: str, *, before: int | None, limit: int) -> Overviews:
    """Return a page of the conversations of `me` (normalised), the newest first.

    `unread` is UNREAD_CAP + 1 when there are more than UNREAD_CAP. Only the newest UNREAD_LOOKED_AT messages of a
    conversation are counted.
    """
    # read first: a message that arrives meanwhile may come in the list and in sync, but is never missing in both
    sync_from = await reader.newest_seq()
    start = FROM_THE_START if before is None else before
    entries, more = await reader.entries(me, start, limit, count_to=UNREAD_CAP + 1, look_at=UNREAD_LOOKED_AT)
    needed = [seq for entry in entries for seq in (entry.last_seq, entry.left_seq) if seq is not None]
    rows = await reader.messages(needed)
    return Overviews([_overview(entry, rows) for entry in entries], entries[-1].place if more else None, sync_from)


def _overview(entry: Entry, rows: Mapping[int, ReadRow]) -> Overview:
    last = None if entry.last_seq is None else rows.get(entry.last_seq)
    name, deleted = entry.session_name, entry.deleted_at is not None
    if entry.left_seq is not None:
        # a user who left may not learn the present name of the session, nor whether it still exists
        farewell = rows.get(entry.left_seq)
        told = farewell.elements if farewell is not None else []
        notice = told[0] if told else {}
        name = notice.get("session_name")
        deleted = notice.get("session_valid") == 1  # as the specification has it: 1 deleted
    return Overview(
        entry.conversation_id, name, last, entry.unread, entry.read_seq, entry.left_seq is not None, deleted
    )

"""Telling authors in large groups who has read their messages, gathered for up to a second.

In a group of 950 people each reader of a message would otherwise cost 949 deliveries. A read receipt is recorded with
its batch, as ever, and in the same transaction as something that is still to be told (`untold_reads`). A moment later
one transaction takes that out, and writes it as a row of the log to the author. So whatever process dies, an author is
told, and a gathered receipt is published and found in sync like every other row.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from tlim_protocol.envelope import DEFAULT_VERSION
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import MsgType

from message_store.models import Audience
from message_store.notices import SERVER
from message_store.publication import delivery_of
from message_store.service import BatchPublication
from message_store.values import DeliveredRow, LogRow, PendingRead, Writes

GATHER_EVERY_S = 1.0
"""So long readers are gathered: an author waits at most that long, and gets at most one receipt a second in a group."""

MAX_TAKEN = 10_000
"""Reads that are taken out at a time, which takes some 100 ms."""

MAX_ELEMENTS = 500
"""Messages in one gathered receipt: with the longest ids it stays below the 256 KiB of a stanza."""

MAX_NAMED = 200
"""Readers that one gathered receipt names. More are only counted, and the author asks for the ledger of the message."""


class UntoldTables(Protocol):
    """Where it is kept who is still to be told (archive_repository.Archive)."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Commit on leaving; no other transaction draws a seq meanwhile."""

    async def has_untold(self) -> bool:
        """Tell whether anybody is still to be told."""

    async def take_untold(self, limit: int, /) -> Sequence[PendingRead]:
        """Take out up to `limit` reads."""

    async def draw(self, count: int, /) -> list[int]:
        """Return the next seqs, rising."""

    async def write(self, writes: Writes, /) -> None:
        """Write rows of the log."""


class RestorablePublication(BatchPublication, Protocol):
    """How rows are published (publication.Publication)."""

    async def restore(self) -> None:
        """Publish what is committed and not published yet."""


class Gathered(NamedTuple):
    """What the author of messages in a session is told at once; `body` is that of a read receipt."""

    session_id: str
    author: str
    body: list[dict[str, Any]]


class Gathering:
    """Tells authors on each call the oldest MAX_TAKEN reads that they have not been told."""

    def __init__(self, archive: UntoldTables, publication: RestorablePublication, now: Callable[[], int]) -> None:
        self._archive = archive
        self._publication = publication
        self._now = now  # epoch milliseconds
        self._is_behind = True  # a store that gathered before us may have died before it published

    async def tell(self) -> bool:
        """Tell authors of up to MAX_TAKEN reads; return whether there may be more.

        Raises DatabaseUnavailable or BrokerUnavailable, and the next call goes on from there.
        """
        if self._is_behind:  # something is committed, and there may be no message for long that would publish it
            await self._publication.restore()
            self._is_behind = False
        async with self._publication.turn():
            if not await self._archive.has_untold():
                return False
            self._is_behind = True
            taken, rows = await self._keep()
            deliveries = [delivery_of(_to_author(row)) for row in rows]
            if rows:
                await self._publication.publish([delivery for delivery in deliveries if delivery is not None])
            self._is_behind = False
        return taken == MAX_TAKEN

    async def _keep(self) -> tuple[int, list[LogRow]]:
        """Write a row for each author; return how many reads were taken out, and the rows."""
        async with self._archive.transaction():
            reads = await self._archive.take_untold(MAX_TAKEN)
            gathered = gather(reads)
            if not gathered:
                return 0, []
            seqs, now = await self._archive.draw(len(gathered)), self._now()
            rows = [_row(seq, one, now) for seq, one in zip(seqs, gathered, strict=True)]
            await self._archive.write(Writes(now, rows=rows))
            await self._publication.follow(seqs)
        return len(reads), rows


def gather(reads: Iterable[PendingRead]) -> list[Gathered]:
    """Return what each author is told: one element for each message, with its readers."""
    told: dict[tuple[str, str], dict[str, list[str]]] = {}
    for read in reads:
        told.setdefault((read.session_id, read.author), {}).setdefault(read.msg_id, []).append(read.reader)
    return [
        Gathered(session_id, author, body)
        for (session_id, author), readers in told.items()
        for body in _bodies(session_id, readers)
    ]


def _bodies(session_id: str, readers_of: Mapping[str, Sequence[str]]) -> Iterator[list[dict[str, Any]]]:
    messages = list(readers_of.items())
    for start in range(0, len(messages), MAX_ELEMENTS):
        body, room = [], MAX_NAMED
        for msg_id, readers in messages[start : start + MAX_ELEMENTS]:
            named = [{"user_id": reader} for reader in readers[:room]]
            room -= len(named)
            body.append({"session_id": session_id, "msg_id": msg_id, "readers": named, "readers_count": len(readers)})
        yield body


def _row(seq: int, gathered: Gathered, now: int) -> LogRow:
    return LogRow(
        seq=seq,
        conversation_id=gathered.session_id,
        sender=SERVER,
        recipient=gathered.author,
        audience=Audience.RECIPIENT,
        msg_id=f"{gathered.session_id}:read:{seq}",
        msg_type=MsgType.READ,
        is_chat=False,
        version=DEFAULT_VERSION,
        body=write_json(gathered.body),
        msg_time=str(now),
        location="",
        stored_at=now,
    )


def _to_author(row: LogRow) -> DeliveredRow:
    return DeliveredRow(row, is_recalled=False, recipients=[row.recipient or ""])

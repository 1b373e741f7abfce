"""The rules of retention: what goes, in which order, so that every step leaves a store that is sound."""

from typing import NamedTuple, Protocol

BATCH = 2_000
"""Rows of the log in one transaction: less than a second's work, even where nothing of it is in memory any more."""


class Partition(NamedTuple):
    """A part of the log: the seqs from `first` up to, but without, `bound`."""

    name: str
    first: int
    bound: int


class Removed(NamedTuple):
    """What a run has removed."""

    rows: int = 0  # of the log, those in dropped partitions included
    partitions: int = 0
    recalls: int = 0


class AgedTables(Protocol):
    """The tables, with their owner's rights (maintain.repository.Maintenance)."""

    async def settled_seq(self) -> int:
        """Return up to which seq everything is published and indexed."""

    async def partitions(self) -> list[Partition]:
        """Return the parts of the log, oldest first."""

    async def drop_leftovers(self) -> int:
        """Drop partitions that a run before has detached and not dropped; return how many."""

    async def holds_younger(self, partition: Partition, cutoff: int, /) -> bool:
        """Tell whether a row of it was stored at a time or after."""

    async def end_of_batch(self, after: int, settled: int, cutoff: int, limit: int, /) -> int | None:
        """Return the last of the next rows that were all stored before a time; None: there is none."""

    async def remove_around(self, after: int, last: int, /) -> int:
        """Remove what belongs to rows of the log, in one transaction; return how many rows they are."""

    async def remove(self, after: int, last: int, /) -> int:
        """Remove rows of the log with what belongs to them, in one transaction; return how many rows they are."""

    async def drop(self, partition: Partition, /) -> None:
        """Drop a part of the log; nobody waits for it."""

    async def remove_recalls(self, cutoff: int, limit: int, /) -> int:
        """Remove audit rows of recalls before a time; return how many."""


async def remove_messages(store: AgedTables, cutoff: int) -> Removed:
    """Remove everything of the log that was stored before `cutoff` (epoch milliseconds), from the oldest on.

    Conversations stay, each with its place in the list: they are listed without a last message when that has gone.
    Stops at the first row that is younger, whatever the clock said of those behind it, and at what is not yet published
    and indexed. Partitions that hold nothing younger are dropped, rows of the next are removed in batches. A run that
    was broken off is finished by the next one.
    """
    removed = Removed(partitions=await store.drop_leftovers())
    settled, after = await store.settled_seq(), 0
    for partition in await store.partitions():
        after = partition.first - 1
        if partition.bound > settled + 1 or await store.holds_younger(partition, cutoff):
            break
        while (last := await store.end_of_batch(after, partition.bound - 1, cutoff, BATCH)) is not None:
            removed = removed._replace(rows=removed.rows + await store.remove_around(after, last))
            after = last
        await store.drop(partition)
        removed, after = removed._replace(partitions=removed.partitions + 1), partition.bound - 1
    while (last := await store.end_of_batch(after, settled, cutoff, BATCH)) is not None:
        removed = removed._replace(rows=removed.rows + await store.remove(after, last))
        after = last
    return removed


async def remove_recalls(store: AgedTables, cutoff: int) -> Removed:
    """Remove the audit of what was recalled before `cutoff` (epoch milliseconds)."""
    removed = Removed()
    while count := await store.remove_recalls(cutoff, BATCH):
        removed = removed._replace(recalls=removed.recalls + count)
    return removed

"""The rules of retention: what is removed, and in which order, so that the store is sound after every step."""

from typing import NamedTuple, Protocol

BATCH = 2_000
"""Rows of the log in one transaction: less than a second of work, even when none of them is in memory."""


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
        """Drop partitions that an earlier run has detached but not dropped; return how many."""

    async def holds_younger(self, partition: Partition, cutoff: int, /) -> bool:
        """Tell whether the partition has a row that was stored at `cutoff` or later."""

    async def end_of_batch(self, after: int, settled: int, cutoff: int, limit: int, /) -> int | None:
        """Return the seq of the last of the next rows that were all stored before `cutoff`; None: there is none."""

    async def remove_around(self, after: int, last: int, /) -> int:
        """Remove what belongs to rows of the log, in one transaction; return the number of these rows."""

    async def remove(self, after: int, last: int, /) -> int:
        """Remove rows of the log with what belongs to them, in one transaction; return the number of these rows."""

    async def drop(self, partition: Partition, /) -> None:
        """Drop a partition; no reader or writer has to wait for it."""

    async def remove_recalls(self, cutoff: int, limit: int, /) -> int:
        """Remove audit rows of recalls before a time; return how many."""


async def remove_messages(store: AgedTables, cutoff: int) -> Removed:
    """Remove everything of the log that was stored before `cutoff` (epoch milliseconds), from the oldest on.

    Conversations keep their place in the list; they are listed without a last message when it was removed. We stop at
    the first younger row, even if rows after it have older times. We also stop at rows that are not yet published and
    indexed. Partitions without younger rows are dropped; of the next partition, rows are removed in batches. The next
    run finishes a run that was interrupted.
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

"""The rules of retention for messages: what goes, and in which order, so that the store is sound after every step."""

from collections.abc import Callable
from typing import NamedTuple

from tlim_admin.retention.log_tables import Log

BATCH = 2_000
"""Rows of the log in one transaction: less than a second of work, even when none of them is in memory."""


Tell = Callable[[int, int], None]
"""Is told how far the run is: seqs that are done, and about how many there are."""


def tell_nobody(_: int, __: int) -> None:
    """Let a run be silent."""


class Removed(NamedTuple):
    """What a run has removed."""

    rows: int = 0  # of the log, those in dropped partitions included
    partitions: int = 0
    recalls: int = 0
    last: int = 0  # everything up to this seq has gone


async def remove_messages(store: Log, cutoff: int, tell: Tell = tell_nobody) -> Removed:
    """Remove everything of the log that was stored before `cutoff` (epoch milliseconds), from the oldest on.

    Conversations keep their place in the list; they are listed without a last message when it was removed. We stop at
    the first younger row, even if rows after it have older times. We also stop at rows that are not yet published and
    indexed. Partitions without younger rows are dropped; of the next partition, rows are removed in batches. The next
    run finishes a run that was interrupted.
    """
    removed = Removed(partitions=await store.drop_leftovers())
    settled, after = await store.settled_seq(), 0
    partitions = await store.partitions()
    first = partitions[0].first if partitions else 0
    about = min(await store.newest_before(cutoff), settled) - first + 1
    for partition in partitions:
        after = partition.first - 1
        if partition.bound > settled + 1 or await store.holds_younger(partition, cutoff):
            break
        while (last := await store.end_of_batch(after, partition.bound - 1, cutoff, BATCH)) is not None:
            removed = removed._replace(rows=removed.rows + await store.remove_around(after, last))
            after = last
            tell(last - first + 1, about)
        await store.drop(partition)
        after = partition.bound - 1
        removed = removed._replace(partitions=removed.partitions + 1, last=after)
    while (last := await store.end_of_batch(after, settled, cutoff, BATCH)) is not None:
        removed = removed._replace(rows=removed.rows + await store.remove(after, last), last=last)
        after = last
        tell(last - first + 1, about)
    return removed


async def remove_recalls(store: Log, cutoff: int) -> Removed:
    """Remove the audit of what was recalled before `cutoff` (epoch milliseconds)."""
    removed = Removed()
    while count := await store.remove_recalls(cutoff, BATCH):
        removed = removed._replace(recalls=removed.recalls + count)
    return removed

"""The rules of retention for files: a file goes when it is old, and no message that is kept carries it."""

from tlim_runtime.transactions import Connection

from tlim_admin.removal import RemovedFiles, forget_notes, old_files, old_notes, remove
from tlim_admin.retention.log_tables import carried_after
from tlim_admin.retention.messages import Tell

BATCH = 1_000
"""Files in one transaction: less than a second of work."""


async def remove_files(
    files: Connection, store: Connection, cutoff: int, after_seq: int, tell: Tell, *, rehearsal: bool
) -> RemovedFiles:
    """Remove the files that were uploaded before `cutoff` (epoch ms) and are in no message after the seq `after_seq`.

    Whether a message carries a file is asked for each batch just before it goes. A file that somebody sends again in
    that very moment goes all the same. In a `rehearsal` nothing is removed; then bytes are counted for each file.
    """
    gone, last, seen = RemovedFiles(), "", 0
    while batch := await old_files(files, cutoff, last, BATCH):
        kept = await carried_after(store, list(batch), after_seq)
        unused = {one: size for one, size in batch.items() if one not in kept}
        if rehearsal:
            removed = RemovedFiles(len(unused), sum(unused.values()))
        else:
            removed = await remove(files, list(unused))
        gone = RemovedFiles(gone.files + removed.files, gone.bytes + removed.bytes)
        last, seen = max(batch), seen + len(batch)
        tell(seen, seen)
    return gone


async def forget_removed(files: Connection, store: Connection, cutoff: int, after_seq: int) -> None:
    """Forget files removed before `cutoff` (epoch ms), unless a message after the seq `after_seq` carries them."""
    last = ""
    while batch := await old_notes(files, cutoff, last, BATCH):
        kept = await carried_after(store, batch, after_seq)
        await forget_notes(files, [one for one in batch if one not in kept])
        last = batch[-1]

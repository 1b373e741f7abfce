"""Erases a person: texts and files that they wrote, their name, their account.

The rows of the log stay, emptied as a recall empties them, so that the order and the seqs of everybody's history stay.
Each step can be repeated. A run that was broken off is typed again, and does what is left.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple

from tlim_runtime.transactions import Connection

from tlim_admin import removal
from tlim_admin.backup.accounts import Accounts
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.tables import OwnerLogin, connected
from tlim_admin.people import files_tables, messages_tables, sessions_tables
from tlim_admin.progress import Bar, Steps

BATCH = 500
"""Messages in one transaction: message-store writes nothing meanwhile, a tenth of a second."""

GONE_WITHIN_S = 30.0
"""The bridge notes within seconds that the last session of a person has ended."""

_LOOK_EVERY_S = 0.5


class Erasure(NamedTuple):
    """What a run erased, or would erase: messages, files, and bytes that no other file has.

    `kept_files`: files that others have sent on. They belong to these messages now.
    """

    messages: int
    files: int
    bytes: int = 0
    kept_files: int = 0


async def plan(user_id: str, logins: Mapping[str, OwnerLogin], steps: Steps) -> Erasure:
    """Return what there is to erase. Raises BackupError for a person who is not in the directory."""
    async with connected(logins["session_api"]) as sessions:
        if await sessions_tables.profile(sessions, user_id) is None:
            raise BackupError(f"the directory has no user {user_id}")
    with steps.step("counting messages and files"):
        async with connected(logins["message_store"]) as store, connected(logins["file_api"]) as files:
            return Erasure(await messages_tables.written(store, user_id), await files_tables.count(files, user_id))


async def erase(user_id: str, logins: Mapping[str, OwnerLogin], accounts: Accounts | None, steps: Steps) -> Erasure:
    """Erase a person, and return what this run has erased. Raises BackupError."""
    expected = await plan(user_id, logins, steps)
    with steps.step("closing the account"):
        async with connected(logins["session_api"]) as sessions:
            await sessions_tables.deactivate(sessions, user_id, _now())
        if accounts is not None:
            await asyncio.to_thread(accounts.remove, user_id)
    async with connected(logins["message_store"]) as store, connected(logins["file_api"]) as files:
        with steps.bar("emptying messages") as bar:
            messages, last = await _messages(store, user_id, 0, expected.messages, bar)
        with steps.bar("removing files") as bar:
            done = await _files(files, store, user_id, expected.files, bar)
        with steps.step("waiting for the end of sessions"):
            await _is_gone(store, user_id)
        # They were on their way when the account was closed.
        with steps.bar("emptying messages stored meanwhile") as bar:
            late, _ = await _messages(store, user_id, last, 0, bar)
        await messages_tables.forget(store, user_id)
    erased = done._replace(messages=messages + late)
    async with connected(logins["session_api"]) as sessions:
        await sessions_tables.forget(sessions, user_id, _now(), erased._asdict())
    return erased


async def _messages(store: Connection, user_id: str, after: int, expected: int, bar: Bar) -> tuple[int, int]:
    """Empty the person's messages behind the seq `after`; return how many there were, and the last seq."""
    total = 0
    while batch := await messages_tables.empty_messages(store, user_id, _now(), after, BATCH):
        total, after = total + len(batch), batch[-1]
        bar.at(total, max(expected, total))
    return total, after


async def _files(files: Connection, store: Connection, user_id: str, expected: int, bar: Bar) -> Erasure:
    """Remove the person's files. Their own messages are empty now: others have sent what is still carried."""
    await files_tables.end_uploads(files, user_id)
    done, last = Erasure(0, 0), ""
    while batch := await files_tables.next_files(files, user_id, last, BATCH):
        kept = await messages_tables.carried(store, batch)
        gone = await removal.remove(files, [one for one in batch if one not in kept])
        done = Erasure(0, done.files + gone.files, done.bytes + gone.bytes, done.kept_files + len(kept))
        bar.at(done.files + done.kept_files, expected)
        last = batch[-1]
    return done


async def _is_gone(store: Connection, user_id: str) -> None:
    """Return when no session is counted any more: a note that comes later would make the mailbox anew."""
    for _ in range(int(GONE_WITHIN_S / _LOOK_EVERY_S)):
        if not await messages_tables.is_present(store, user_id):
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    raise BackupError(f"{user_id} is still online: does xmpp-bridge run? Nothing is left out; type the command again")


def _now() -> int:
    return time.time_ns() // 1_000_000

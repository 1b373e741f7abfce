"""Puts a backup into an empty system, before its services have started for the first time."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tlim_admin.backup import dumps, manifest, objects, tables
from tlim_admin.backup.accounts import Accounts, read_line
from tlim_admin.backup.manifest import ACCOUNTS, BackupError, Manifest, dump_of
from tlim_admin.backup.objects import Bucket
from tlim_admin.backup.tables import OwnerLogin
from tlim_admin.progress import Steps


async def restore(
    folder: Path, logins: Mapping[str, OwnerLogin], bucket: Bucket, accounts: Accounts | None, steps: Steps
) -> Manifest:
    """Restore a backup. Raises BackupError. Nothing is changed if the backup is damaged, or the target not empty.

    A run that was interrupted is repeated: what it has restored already counts as part of an empty target.
    """
    whole = await asyncio.to_thread(read_whole, folder, steps)
    with steps.step("looking at the target"):
        waiting = [login for login in logins.values() if not await _is_restored(login, whole)]
        await asyncio.to_thread(_check_objects, bucket, whole)
        await asyncio.to_thread(_check_accounts, folder, accounts, whole)
    await asyncio.to_thread(_put_objects, folder, bucket, whole, steps)
    await asyncio.to_thread(_put_accounts, folder, accounts, whole, steps)
    for login in waiting:
        with steps.step(f"restoring {login.service}"):
            await dumps.restore(login, folder / dump_of(login.service))
            if not await _is_restored(login, whole):
                raise BackupError(f"{login.service} was restored, and is empty")
    return whole


def restore_accounts(folder: Path, accounts: Accounts | None, steps: Steps) -> Manifest:
    """Restore the accounts of a backup alone, whatever databases and bucket have. Raises BackupError.

    It is for a new XMPP server beside stores that stay. The audit has a note of the backup, so `restore` refuses them.
    """
    whole = read_whole(folder, steps)
    if whole.accounts is None:
        raise BackupError("the backup has no accounts: they are kept elsewhere")
    with steps.step("looking at the target"):
        _check_accounts(folder, accounts, whole)
    _put_accounts(folder, accounts, whole, steps)
    return whole


def read_whole(folder: Path, steps: Steps) -> Manifest:
    """Read a backup to its last byte and return its manifest. Raises BackupError if anything is missing or damaged."""
    found = manifest.read(folder)
    for _ in steps.each("reading the backup", manifest.check_parts(folder, found), len(found.parts)):
        pass
    return found


async def _is_restored(login: OwnerLogin, whole: Manifest) -> bool:
    """Whether the database has what the backup has; False if it is empty. Raises BackupError for anything else."""
    async with tables.connected(login) as connection:
        there = await tables.content(connection)
    if there and there != whole.databases[login.service]:
        raise BackupError(f"the database {login.service} is not empty: a backup is restored into an empty one only")
    return bool(there)


def _check_objects(bucket: Bucket, whole: Manifest) -> None:
    others = [key for key in bucket.sizes() if objects.path_of(key) not in whole.parts]
    if others:
        raise BackupError(f"the bucket is not empty: it has {len(others)} objects that the backup does not have")


def _check_accounts(folder: Path, accounts: Accounts | None, whole: Manifest) -> None:
    if whole.accounts is None:
        return
    if accounts is None:
        raise BackupError("the backup has accounts: TLIM_XMPP_ADMIN_URL must name the XMPP server's API")
    known = {read_line(line).user for line in _lines(folder)}
    others = [account.user for account in accounts.all() if account.user not in known]
    if others:
        raise BackupError(f"the XMPP server is not empty: it has accounts such as {others[0]}, and the backup has not")


def _put_objects(folder: Path, bucket: Bucket, whole: Manifest, steps: Steps) -> None:
    with steps.step("listing the objects"):
        there = bucket.sizes()
    missing = [key for key in objects.keys_in(whole.parts) if there.get(key) != whole.parts[objects.path_of(key)].size]

    def put(key: str) -> None:
        bucket.put(key, folder / objects.path_of(key))

    for _ in steps.each("writing objects", objects.together(put, missing), len(missing)):
        pass


def _put_accounts(folder: Path, accounts: Accounts | None, whole: Manifest, steps: Steps) -> None:
    if accounts is None or whole.accounts is None:
        return
    restored = objects.together(accounts.restore, map(read_line, _lines(folder)))
    for _ in steps.each("making accounts", restored, whole.accounts):
        pass


def _lines(folder: Path) -> list[str]:
    return (folder / ACCOUNTS).read_text(encoding="utf-8").splitlines()

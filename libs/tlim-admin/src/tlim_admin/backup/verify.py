"""Compares the stores with each other, or with a backup."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tlim_admin.backup import manifest, objects, tables
from tlim_admin.backup.accounts import Accounts, line_of
from tlim_admin.backup.manifest import ACCOUNTS
from tlim_admin.backup.objects import Bucket
from tlim_admin.backup.tables import NeededBlob, OwnerLogin
from tlim_admin.progress import Steps

SETTLE_S = 10.0
"""An event of a session is applied within milliseconds. After this time it was lost, or message-store is behind."""

_LOOK_EVERY_S = 0.5


class Verdict(NamedTuple):
    """What was compared, as counts, and what does not agree, one sentence each."""

    counts: dict[str, int]
    findings: list[str]


async def stores(
    logins: Mapping[str, OwnerLogin],
    bucket: Bucket,
    accounts: Accounts | None,
    steps: Steps,
    *,
    read_bytes: bool = False,
    accept_lost: bool = False,
) -> Verdict:
    """Compare the stores of a running system with each other. With `read_bytes`, read every object and hash it.

    People delete and recall meanwhile: what looks wrong is looked up once more. With `accept_lost`, files that are
    missing are entered as removed, and are no finding any more.
    """
    blobs, findings = await _blobs(logins["file_api"], bucket, steps, read_bytes=read_bytes)
    carried, lost = await _files(logins, steps)
    if accept_lost:
        async with tables.connected(logins["file_api"]) as files:
            await tables.accept_as_removed(files, lost)
    else:
        findings += [f"messages carry the file {one}, which file-api has lost" for one in lost]
    sessions, behind = await _sessions(logins, steps)
    findings += [f"message-store is behind in session {one}" for one in behind]
    counts = {"blobs": blobs, "files in messages": carried, "sessions": sessions}
    if accept_lost:
        counts["lost files accepted"] = len(lost)
    if accounts is not None:
        with steps.step("counting the accounts"):
            counts["accounts"] = await asyncio.to_thread(lambda: sum(1 for _ in accounts.all()))
    return Verdict(counts, findings)


async def _blobs(login: OwnerLogin, bucket: Bucket, steps: Steps, *, read_bytes: bool) -> tuple[int, list[str]]:
    """Return the number of blobs, and what is wrong with the objects of those that are still there at the end."""
    async with tables.connected(login) as files:
        blobs = await tables.blobs(files)
    wrong = await asyncio.to_thread(_objects, blobs, bucket, steps, read_bytes)
    if wrong:
        async with tables.connected(login) as files:
            still = await tables.blobs(files)
        wrong = {blob_id: finding for blob_id, finding in wrong.items() if blob_id in still}
    return len(blobs), list(wrong.values())


async def _files(logins: Mapping[str, OwnerLogin], steps: Steps) -> tuple[int, list[str]]:
    """Return the number of files that messages carry, and those that are missing though nobody removed them."""
    with steps.step("comparing messages and files"):
        async with tables.connected(logins["message_store"]) as store, tables.connected(logins["file_api"]) as files:
            carried = await tables.carried_files(store)
            missing = await tables.missing_files(files, carried)
            return len(carried), await tables.carried_files(store, missing)


async def against(
    folder: Path, logins: Mapping[str, OwnerLogin], bucket: Bucket, accounts: Accounts | None, steps: Steps
) -> Verdict:
    """Compare a restored system, whose services have not started yet, with its backup: every row and every byte."""
    expected, findings = manifest.read(folder), []
    for service, login in logins.items():
        with steps.step(f"reading {service}"):
            async with tables.connected(login) as connection:
                there = await tables.content(connection)
        backed_up = expected.databases[service]
        other = [name for name in there.keys() | backed_up.keys() if there.get(name) != backed_up.get(name)]
        findings += [f"table {name} of {service} is not that of the backup" for name in sorted(other)]
    findings += await asyncio.to_thread(_bytes_against, expected, bucket, steps)
    if accounts is not None and expected.accounts is not None:
        with steps.step("reading the accounts"):
            digest = await asyncio.to_thread(_digest, accounts)
        if digest != expected.parts[ACCOUNTS].sha256:
            findings.append("the accounts are not those of the backup")
    rows = sum(table.rows for content in expected.databases.values() for table in content.values())
    return Verdict({"rows": rows, "objects": expected.objects, "accounts": expected.accounts or 0}, findings)


def _digest(accounts: Accounts) -> str:
    digest = hashlib.sha256()
    for account in accounts.all():
        digest.update(line_of(account).encode())
    return digest.hexdigest()


def _objects(blobs: Mapping[str, NeededBlob], bucket: Bucket, steps: Steps, read_bytes: bool) -> dict[str, str]:
    """Return what is wrong with the objects of these blobs, by the blob's id."""
    with steps.step("listing the objects"):
        there = bucket.sizes()
    wrong = {}
    for blob_id, blob in blobs.items():
        size = there.get(objects.key_of(blob_id))
        if size is None:
            wrong[blob_id] = "is not in S3"
        elif size != blob.size:
            wrong[blob_id] = f"has {size} bytes, not {blob.size}"
    if read_bytes:
        present = [blob_id for blob_id in blobs if blob_id not in wrong]
        digests = zip(present, objects.together(bucket.digest, map(objects.key_of, present)), strict=True)
        for blob_id, digest in steps.each("reading objects", digests, len(present)):
            if digest is None:
                wrong[blob_id] = "is not in S3"
            elif digest != blobs[blob_id].sha256:
                wrong[blob_id] = "has other bytes than were uploaded"
    return {blob_id: f"{objects.key_of(blob_id)} {finding}" for blob_id, finding in wrong.items()}


async def _sessions(logins: Mapping[str, OwnerLogin], steps: Steps) -> tuple[int, list[str]]:
    """Return the number of sessions, and those whose newest version message-store does not apply."""
    with steps.step("comparing sessions"):
        async with (
            tables.connected(logins["session_api"]) as sessions,
            tables.connected(logins["message_store"]) as store,
        ):
            newest = await tables.versions_of_sessions(sessions)
            for _ in range(int(SETTLE_S / _LOOK_EVERY_S)):
                applied = await tables.applied_versions(store)
                behind = [one for one, version in newest.items() if applied.get(one, 0) < version]
                if not behind:
                    break
                await asyncio.sleep(_LOOK_EVERY_S)
    return len(newest), behind


def _bytes_against(expected: manifest.Manifest, bucket: Bucket, steps: Steps) -> list[str]:
    with steps.step("listing the objects"):
        there = bucket.sizes()
    keys = objects.keys_in(expected.parts)
    findings = [f"{key} is not in S3" for key in keys if key not in there]
    findings += [
        f"{key} is in S3, and not in the backup" for key in there if objects.path_of(key) not in expected.parts
    ]
    present = [key for key in keys if key in there]
    digests = zip(present, objects.together(bucket.digest, present), strict=True)
    for key, digest in steps.each("reading objects", digests, len(present)):
        if digest != expected.parts[objects.path_of(key)].sha256:
            findings.append(f"{key} has other bytes than the backup")
    return findings

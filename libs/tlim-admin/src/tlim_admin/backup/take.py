"""Takes a backup while the system runs.

First the log of messages is dumped, then the sessions, then the files, and the bytes come last. So every session and
every file that a dumped message names is there. A file can be removed while the bytes are copied. Then its database is
dumped once more, until every row has its bytes.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tlim_admin.backup import dumps, objects, tables
from tlim_admin.backup.accounts import Accounts, line_of
from tlim_admin.backup.manifest import ACCOUNTS, NAME, BackupError, BackupPart, Manifest, Tables, dump_of, measure
from tlim_admin.backup.objects import Bucket
from tlim_admin.backup.tables import NeededBlob, OwnerLogin
from tlim_admin.drafts import drafted
from tlim_admin.progress import Steps

ORDER = ("message_store", "session_api", "file_api")
"""What refers to others comes first."""

NOTE_FOR_S = 60.0
"""PostgreSQL starts again within a minute."""

_AGAIN_S = 2.0

Dumped = tuple[Tables, Mapping[str, NeededBlob]]


@dataclass
class Copied:
    """The objects that are in the backup, by key, and the keys of those that S3 does not have."""

    parts: dict[str, BackupPart] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


async def take(
    folder: Path, logins: Mapping[str, OwnerLogin], bucket: Bucket, accounts: Accounts | None, steps: Steps
) -> Manifest:
    """Write a backup into `folder`, which must not exist. Raises BackupError, and leaves nothing then.

    Everything is written to a folder beside it, which gets the name at the end.
    """
    with drafted(folder, steps) as draft:
        return await _write(draft, logins, bucket, accounts, steps)


async def note(login: OwnerLogin, manifest: Manifest, steps: Steps) -> str:
    """Let the operators see in the audit, and by a metric, when the last backup was made.

    It is tried for up to NOTE_FOR_S. Returns why it failed, or an empty text: the backup is complete all the same.
    """
    detail = {"objects": manifest.objects, "object_bytes": manifest.object_bytes, "accounts": manifest.accounts}
    at = int(manifest.made_at.timestamp() * 1000)
    last = time.monotonic() + NOTE_FOR_S
    with steps.step("entering it in the audit"):
        while True:
            try:
                async with tables.connected(login) as connection:
                    await tables.note_backup(connection, at, json.dumps(detail))
            except (BackupError, OSError) as error:
                if time.monotonic() >= last:
                    return str(error)
            else:
                return ""
            await asyncio.sleep(_AGAIN_S)


async def _write(
    draft: Path, logins: Mapping[str, OwnerLogin], bucket: Bucket, accounts: Accounts | None, steps: Steps
) -> Manifest:
    databases: dict[str, Tables] = {}
    for service in ORDER[:-1]:
        databases[service], _ = await _dump(draft, logins[service], steps)
    databases[ORDER[-1]], copied = await files(lambda: _dump(draft, logins[ORDER[-1]], steps), draft, bucket, steps)
    count = await asyncio.to_thread(_accounts, draft, accounts, steps)
    written = [*map(dump_of, ORDER), *([] if count is None else [ACCOUNTS])]
    with steps.step("reading the dumps once more"):
        parts = {name: await asyncio.to_thread(measure, draft / name) for name in written}
    manifest = Manifest(
        made_at=datetime.now(UTC),
        databases=databases,
        objects=len(copied.parts),
        object_bytes=sum(part.size for part in copied.parts.values()),
        accounts=count,
        lost=copied.lost,
        parts={**parts, **{objects.path_of(key): part for key, part in copied.parts.items()}},
    )
    (draft / NAME).write_text(manifest.model_dump_json(indent=1))
    return manifest


async def _dump(draft: Path, login: OwnerLogin, steps: Steps) -> Dumped:
    """Dump a database; return what is in it, and the blobs of file-api, as one snapshot sees both."""
    target = draft / dump_of(login.service)
    with steps.step(f"dumping {login.service}"):
        async with tables.snapshot(login) as (connection, snapshot):
            await dumps.dump(login, snapshot, target)
            content = await tables.content(connection)
            return content, await tables.blobs(connection) if login.service == ORDER[-1] else {}


async def files(
    dump: Callable[[], Awaitable[Dumped]], draft: Path, bucket: Bucket, steps: Steps
) -> tuple[Tables, Copied]:
    """Dump the database of files and copy the bytes of its rows, again until every row has its bytes.

    Bytes are lost if they are still missing in the next dump, which still has their row.
    """
    copied = Copied()
    while True:
        content, blobs = await dump()
        before = copied.lost
        copied = await asyncio.to_thread(_copy, draft, blobs, bucket, copied, steps)
        if set(copied.lost) <= set(before):
            return content, copied


def _copy(draft: Path, blobs: Mapping[str, NeededBlob], bucket: Bucket, before: Copied, steps: Steps) -> Copied:
    """Copy what is not copied yet, and remove copies that nobody needs any more."""
    with steps.step("listing the objects"):
        keys = objects.wanted(bucket.sizes(), blobs)
    needed = set(keys)
    for key in before.parts.keys() - needed:
        (draft / objects.path_of(key)).unlink()
    copied = Copied({key: part for key, part in before.parts.items() if key in needed})
    missing = [key for key in keys if key not in copied.parts]

    def fetch(key: str) -> tuple[str, BackupPart | None]:
        part = bucket.fetch(key, draft / objects.path_of(key))
        if part is not None:
            objects.check_digest(key, part, blobs)
        return key, part

    for key, part in steps.each("copying objects", objects.together(fetch, missing), len(missing)):
        if part is not None:
            copied.parts[key] = part
        elif key.startswith("files/"):  # a thumbnail is made anew when somebody asks for it
            copied.lost.append(key)
    return copied


def _accounts(draft: Path, accounts: Accounts | None, steps: Steps) -> int | None:
    """Write the accounts into a file and return how many there are; None if they are kept elsewhere."""
    if accounts is None:
        return None
    lines: Sequence[str] = []
    with steps.step("reading the accounts"), (draft / ACCOUNTS).open("w", encoding="utf-8") as file:
        lines = [line_of(account) for account in accounts.all()]
        file.writelines(lines)
    return len(lines)

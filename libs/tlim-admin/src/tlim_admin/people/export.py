"""Writes all that is kept of a person into a folder or a .zip: JSON lines, the bytes of their files, and a manifest."""

import asyncio
import json
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from tlim_runtime.transactions import Connection

from tlim_admin.backup.accounts import Accounts
from tlim_admin.backup.manifest import NAME, BackupError, BackupPart, measure
from tlim_admin.backup.objects import Bucket, check_digest, key_of, together
from tlim_admin.backup.tables import NeededBlob, OwnerLogin, connected, snapshot
from tlim_admin.drafts import drafted
from tlim_admin.people import files_tables, messages_tables, sessions_tables
from tlim_admin.progress import Steps

FORMAT = 1
FILES = "files"


class ExportManifest(BaseModel):
    """What is in an export: `counts` of records, and size and SHA-256 of every other file of it.

    `lost`: files whose bytes S3 does not have. Times are epoch milliseconds.
    """

    format: int = FORMAT
    user_id: str
    made_at: datetime
    counts: dict[str, int]
    lost: list[str]
    parts: dict[str, BackupPart]


class Stores(NamedTuple):
    """What keeps data of people: databases by service, the bucket, and the accounts, unless these are elsewhere."""

    logins: Mapping[str, OwnerLogin]
    bucket: Bucket
    accounts: Accounts | None


async def export(user_id: str, target: Path, stores: Stores, steps: Steps) -> ExportManifest:
    """Write an export into `target`, which must not exist. Raises BackupError, and leaves nothing then."""
    with drafted(target, steps) as draft:
        counts, lost = await _write(draft, user_id, stores, steps)
        names = sorted(str(file.relative_to(draft)) for file in draft.rglob("*") if file.is_file())
        with steps.step("reading the files once more"):
            parts = {name: await asyncio.to_thread(measure, draft / name) for name in names}
        now = datetime.now(UTC)
        made = ExportManifest(user_id=user_id, made_at=now, counts=counts, lost=lost, parts=parts)
        (draft / NAME).write_text(made.model_dump_json(indent=1), encoding="utf-8")
    async with connected(stores.logins["session_api"]) as sessions:
        await sessions_tables.note(sessions, "user.exported", user_id, time.time_ns() // 1_000_000, counts)
    return made


async def _write(draft: Path, user_id: str, stores: Stores, steps: Steps) -> tuple[dict[str, int], list[str]]:
    """Write everything but the manifest; return the number of records in each file, and the files without bytes."""
    logins, bucket, accounts = stores
    counts: dict[str, int] = {}
    async with snapshot(logins["session_api"]) as (sessions, _):
        profile = await sessions_tables.profile(sessions, user_id)
        if profile is None:
            raise BackupError(f"the directory has no user {user_id}")
        counts["profile"] = _lines(draft, "profile", [profile])
        counts["sessions"] = _lines(draft, "sessions", await sessions_tables.memberships(sessions, user_id))
        counts["audit"] = _lines(draft, "audit", await sessions_tables.audit(sessions, user_id))
    if accounts is not None:
        counts["contacts"] = _lines(draft, "contacts", await asyncio.to_thread(accounts.contacts, user_id))
    with steps.step("reading messages"):
        async with snapshot(logins["message_store"]) as (store, _):
            counts |= await _messages(draft, store, user_id)
    async with snapshot(logins["file_api"]) as (files, _):
        listed = await files_tables.files(files, user_id)
    counts["files"] = _lines(draft, "files", listed)
    return counts, await asyncio.to_thread(_bytes, draft, listed, bucket, steps)


async def _messages(draft: Path, store: Connection, user_id: str) -> dict[str, int]:
    cursors = _lines(draft, "read", await messages_tables.cursors(store, user_id))
    messages = await _stream(draft, "messages", messages_tables.seen(store, user_id))
    receipts = await _stream(draft, "receipts", messages_tables.reports(store, user_id))
    return {"read": cursors, "messages": messages, "receipts": receipts}


async def _stream(draft: Path, name: str, records: AsyncIterable[dict[str, Any]]) -> int:
    """Write records with a `body` of JSON text as lines, one at a time; return how many."""
    count = 0
    with (draft / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        async for record in records:
            file.write(_line({**record, "body": json.loads(record["body"])}))
            count += 1
    return count


def _lines(draft: Path, name: str, records: Iterable[Mapping[str, Any]]) -> int:
    lines = [_line(record) for record in records]
    (draft / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _bytes(draft: Path, listed: list[dict[str, Any]], bucket: Bucket, steps: Steps) -> list[str]:
    """Fetch the bytes of the files, each under its id; return the files whose bytes are not there."""
    with_bytes = [one for one in listed if one["has_bytes"]]

    def fetch(one: Mapping[str, Any]) -> str | None:
        key = key_of(one["blob_id"])
        part = bucket.fetch(key, draft / FILES / one["file_id"])
        if part is None:
            return str(one["file_id"])
        blob = NeededBlob(one["blob_id"], one["size"], one["sha256"], has_thumbnails=False)
        check_digest(key, part, {one["blob_id"]: blob})
        return None

    fetched = together(fetch, with_bytes)
    return [file_id for file_id in steps.each("copying files", fetched, len(with_bytes)) if file_id is not None]

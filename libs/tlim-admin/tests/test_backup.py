"""The rules of backups: every row has its bytes, whatever is removed meanwhile, and a damaged part is noticed."""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from tlim_admin import secret_files
from tlim_admin.__main__ import app
from tlim_admin.backup import commands, manifest, tables
from tlim_admin.backup import take as taking
from tlim_admin.backup.manifest import BackupError, BackupPart, Manifest, Table, Tables
from tlim_admin.backup.objects import Bucket
from tlim_admin.backup.tables import NeededBlob, OwnerLogin
from tlim_admin.backup.take import Dumped, files
from tlim_admin.progress import steps
from typer.testing import CliRunner

CAT, DOG = "c" * 32, "d" * 32


def key_of(blob_id: str) -> str:
    return f"files/{blob_id[:2]}/{blob_id}"


def blob_of(blob_id: str) -> NeededBlob:
    return NeededBlob(blob_id, len(blob_id), hashlib.sha256(blob_id.encode()).hexdigest(), has_thumbnails=True)


class Objects:
    """A bucket in memory: the content of an object is the id of its blob."""

    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)
        self.fetched: list[str] = []

    def sizes(self) -> dict[str, int]:
        return dict.fromkeys(self.keys, 32)

    def fetch(self, key: str, target: Path) -> BackupPart | None:
        if key not in self.keys:
            return None
        self.fetched.append(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(key.rpartition("/")[2])
        return manifest.measure(target)


def dumps(*contents: set[str]) -> Callable[[], Awaitable[Dumped]]:
    """Dumps of a database that has these blobs, one after the other."""
    waiting = list(enumerate(contents, 1))

    async def dump() -> tuple[Tables, dict[str, NeededBlob]]:
        number, blobs = waiting.pop(0)
        return {"dump": Table(rows=number, digest="")}, {blob: blob_of(blob) for blob in blobs}

    return dump


async def test_a_file_that_is_removed_meanwhile_is_in_neither_rows_nor_bytes(tmp_path: Path) -> None:
    objects = Objects(key_of(CAT))
    with steps() as shown:
        content, copied = await files(dumps({CAT, DOG}, {CAT}), tmp_path, cast("Bucket", objects), shown)

    assert content["dump"].rows == 2
    assert (set(copied.parts), copied.lost) == ({key_of(CAT)}, [])
    assert objects.fetched == [key_of(CAT)], "what is copied is not copied again"


async def test_a_copied_file_whose_row_has_gone_is_not_kept(tmp_path: Path) -> None:
    with steps() as shown:
        bucket = cast("Bucket", Objects(key_of(CAT)))
        _, copied = await files(dumps({CAT, DOG}, set()), tmp_path, bucket, shown)

    assert copied.parts == {}
    assert not (tmp_path / "objects" / key_of(CAT)).exists()


async def test_bytes_that_are_still_missing_are_named_as_lost(tmp_path: Path) -> None:
    with steps() as shown:
        bucket = cast("Bucket", Objects(key_of(CAT)))
        _, copied = await files(dumps({CAT, DOG}, {CAT, DOG}), tmp_path, bucket, shown)

    assert copied.lost == [key_of(DOG)]


async def test_bytes_that_are_not_those_of_the_row_end_the_backup(tmp_path: Path) -> None:
    other = blob_of(CAT)._replace(sha256="0" * 64)

    async def dump() -> tuple[Tables, dict[str, NeededBlob]]:
        return {}, {CAT: other}

    with steps() as shown, pytest.raises(BackupError, match="other bytes"):
        await files(dump, tmp_path, cast("Bucket", Objects(key_of(CAT))), shown)


def test_a_manifest_of_another_format_or_half_of_one_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="is no backup"):
        manifest.read(tmp_path)
    (tmp_path / manifest.NAME).write_text('{"format": 1, "made_at"')
    with pytest.raises(BackupError, match="cannot be understood"):
        manifest.read(tmp_path)


MADE = Manifest(
    made_at=datetime.fromtimestamp(0, UTC), databases={}, objects=0, object_bytes=0, accounts=None, lost=[], parts={}
)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The attempts to enter a backup in the audit: PostgreSQL is away at each but the third."""
    made: list[str] = []

    @asynccontextmanager
    async def connected(login: OwnerLogin) -> AsyncIterator[None]:
        made.append(login.service)
        if len(made) != 3:
            raise BackupError("PostgreSQL, session_api: connection refused")
        yield

    async def note_backup(*_: object) -> None: ...

    monkeypatch.setattr(tables, "connected", connected)
    monkeypatch.setattr(tables, "note_backup", note_backup)
    monkeypatch.setattr(taking, "_AGAIN_S", 0)
    return made


async def test_a_backup_is_entered_in_the_audit_when_postgresql_is_back(attempts: list[str]) -> None:
    with steps() as shown:
        assert await taking.note(OwnerLogin("session_api", "", ""), MADE, shown) == ""
    assert attempts == ["session_api"] * 3


def test_a_backup_is_written_when_its_note_in_the_audit_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[str]
) -> None:
    async def take(*_: object) -> Manifest:
        return MADE

    monkeypatch.setattr(commands, "take", take)
    monkeypatch.setattr(taking, "NOTE_FOR_S", 0)
    secret_files.write_missing(tmp_path, "chat.example.org", os.getuid())
    for name, value in {"POSTGRES_URL": "postgresql://127.0.0.1:1", "S3_ENDPOINT_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(f"TLIM_{name}", value)
    for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY"):
        monkeypatch.setenv(f"TLIM_{name}", "a-key-that-is-long-enough-to-be-one")

    ran = CliRunner().invoke(app, ["backup", str(tmp_path / "backup"), "--secrets", str(tmp_path)])

    assert (ran.exit_code, attempts) == (0, ["session_api"])
    assert ran.stdout.startswith(f"written: {tmp_path / 'backup'}, of 1970-01-01 00:00:00 UTC\n")
    assert ran.stderr == "not entered in the audit: PostgreSQL, session_api: connection refused\n"

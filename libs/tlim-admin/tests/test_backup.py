"""The rules of backups: every row has its bytes, whatever is removed meanwhile, and a damaged part is noticed."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from tlim_admin.backup import manifest
from tlim_admin.backup.manifest import BackupError, BackupPart, Table, Tables
from tlim_admin.backup.objects import Bucket
from tlim_admin.backup.tables import NeededBlob
from tlim_admin.backup.take import Dumped, files
from tlim_admin.progress import steps

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

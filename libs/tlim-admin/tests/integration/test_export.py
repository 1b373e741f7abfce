"""An export of a person: all that they can see and nothing else, as a folder or as one file."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tlim_admin.backup.manifest import BackupError
from tlim_admin.backup.objects import Bucket, key_of, opened
from tlim_admin.people.export import ExportManifest, Stores, export
from tlim_admin.progress import steps
from tlim_admin.settings import S3Settings

BLOB, CONTENT = "ab" * 16, b"the plan"
USERS = """
    INSERT INTO users VALUES ('alice', 'Alice', true, 1, 1), ('bob', 'Bob', true, 1, 1);
    INSERT INTO sessions (session_id, session_name, session_type, creator, version, changed_by, created_at)
        VALUES ('g', 'Plans', 1, 'bob', 1, 'bob', 1);
    INSERT INTO subscribers (session_id, user_id, added_version, position, joined_at)
        VALUES ('g', 'bob', 1, 0, 1), ('g', 'alice', 1, 1, 1)"""
LOG = """
    INSERT INTO conversations (conversation_id, created_at, last_seq) VALUES ('u:alice:bob', 1, 3), ('g', 1, 6);
    INSERT INTO members VALUES ('u:alice:bob', 'alice', 0), ('u:alice:bob', 'bob', 0), ('g', 'bob', 1),
                               ('g', 'alice', 5);
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
        VALUES (2, 'u:alice:bob', 'alice', 'bob', 1, 'm2', 'MTT-000', true, '', '[{"text": "to bob"}]', '', 'web', 2),
               (3, 'u:alice:bob', 'bob', 'alice', 1, 'm3', 'MTT-000', true, '', '[{"text": "\\u0000"}]', '', 'web', 3),
               (4, 'g', 'bob', NULL, 2, 'm4', 'MTS-000', true, '', '[{"text": "before alice came"}]', '', 'web', 4),
               (6, 'g', 'bob', NULL, 2, 'm6', 'MTS-000', true, '', '[{"text": "to the group"}]', '', 'web', 6),
               (7, 'u:alice:bob', 'alice', 'bob', 1, 'm7', 'MTC-001', false, '', '[{"msg_id": "m3"}]', '', 'web', 7);
    INSERT INTO read_cursors VALUES ('alice', 'u:alice:bob', 3)"""
BLOBS = "INSERT INTO blobs (blob_id, sha256, size, stored_at, scan) VALUES ($1, $2, $3, now(), 'skipped')"
FILES = """
    INSERT INTO files (file_id, owner_id, blob_id, name, media_type, size, stored_at)
        SELECT file_id, owner_id, $1, 'plan.txt', 'text/plain', 8, now()
        FROM (VALUES ('plan', 'alice'), ('bobs', 'bob')) AS new (file_id, owner_id)"""


async def fill(data: Any, bucket: Bucket, source: Path) -> None:
    await data.sessions.execute(USERS)
    await data.store.execute(LOG)
    await data.files.execute(BLOBS, BLOB, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    await data.files.execute(FILES, BLOB)
    put(bucket, source, CONTENT)


def put(bucket: Bucket, source: Path, content: bytes) -> None:
    source.write_bytes(content)
    bucket.put(key_of(BLOB), source)


async def run(data: Any, bucket: Bucket, target: Path, user_id: str = "alice") -> ExportManifest:
    with steps() as shown:
        return await export(user_id, target, Stores(data.logins, bucket, None), shown)


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


async def test_a_person_gets_what_they_can_see_and_what_they_uploaded(
    data: Any, s3_settings: S3Settings, tmp_path: Path
) -> None:
    with opened(s3_settings) as bucket:
        await fill(data, bucket, tmp_path / "source")
        made = await run(data, bucket, tmp_path / "alice")

    folder = tmp_path / "alice"
    messages = records((folder / "messages.jsonl").read_text())
    assert [one["msg_id"] for one in messages] == ["m2", "m3", "m6"]
    assert messages[1]["body"] == [{"text": "\0"}]
    assert [one["msg_id"] for one in records((folder / "receipts.jsonl").read_text())] == ["m7"]
    assert [one["session_name"] for one in records((folder / "sessions.jsonl").read_text())] == ["Plans"]
    assert [one["file_id"] for one in records((folder / "files.jsonl").read_text())] == ["plan"]
    assert [file.read_bytes() for file in (folder / "files").iterdir()] == [CONTENT]
    assert made.counts == {"profile": 1, "sessions": 1, "audit": 0, "read": 1, "messages": 3, "receipts": 1, "files": 1}
    assert ExportManifest.model_validate_json((folder / "manifest.json").read_text()) == made
    assert set(made.parts) == {str(one.relative_to(folder)) for one in folder.rglob("*.jsonl")} | {"files/plan"}
    assert folder.stat().st_mode & 0o77 == 0
    (entry,) = await data.sessions.fetch("SELECT actor, action, target FROM audit")
    assert tuple(entry) == ("tlim-admin", "user.exported", "alice")


async def test_one_file_has_the_same_and_a_failure_leaves_nothing(
    data: Any, s3_settings: S3Settings, tmp_path: Path
) -> None:
    with opened(s3_settings) as bucket:
        await fill(data, bucket, tmp_path / "source")
        made = await run(data, bucket, tmp_path / "alice.zip")
        with pytest.raises(BackupError, match="is there already"):
            await run(data, bucket, tmp_path / "alice.zip")
        with pytest.raises(BackupError, match="no user carol"):
            await run(data, bucket, tmp_path / "carol", "carol")

    with zipfile.ZipFile(tmp_path / "alice.zip") as archive:
        names = {one for one in archive.namelist() if not one.endswith("/")}
        assert names == {*made.parts, "manifest.json"}
        assert archive.read("files/plan") == CONTENT
    assert names_in(tmp_path) == ["alice.zip", "source"]
    assert (tmp_path / "alice.zip").stat().st_mode & 0o77 == 0


async def test_bytes_that_are_lost_are_named_and_others_than_were_uploaded_are_refused(
    data: Any, s3_settings: S3Settings, tmp_path: Path
) -> None:
    with opened(s3_settings) as bucket:
        await fill(data, bucket, tmp_path / "source")
        put(bucket, tmp_path / "source", b"the PLAN")
        with pytest.raises(BackupError, match="other bytes"):
            await run(data, bucket, tmp_path / "alice")
        await data.files.execute(BLOBS, "cd" * 16, "other", 1)
        await data.files.execute("UPDATE files SET blob_id = $1", "cd" * 16)
        assert (await run(data, bucket, tmp_path / "alice")).lost == ["plan"]

"""Verify of a running system: what was removed on purpose is no finding, what is lost is one."""

import asyncio
from typing import Any

import pytest
from tlim_admin import removal
from tlim_admin.backup import tables, verify
from tlim_admin.backup.objects import key_of, opened
from tlim_admin.backup.verify import Verdict
from tlim_admin.progress import steps
from tlim_admin.settings import S3Settings

LOG = """
    INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version, body,
                          msg_time, location, stored_at)
        SELECT n, 'u:alice:bob', 'alice', 'bob', 1, 'm' || n, 'MFT-000', true, '', '[]', '', 'web', n
        FROM generate_series(1, 3) AS n;
    INSERT INTO message_files VALUES ('deleted', 1), ('kept', 2), ('lost', 3)"""
FILES = """
    INSERT INTO blobs (blob_id, sha256, size, stored_at, scan)
        SELECT md5(name), name, 3, now(), 'skipped' FROM unnest('{deleted,kept,lost,unsent}'::text[]) AS new (name);
    INSERT INTO files (file_id, owner_id, blob_id, name, media_type, size, stored_at, sent_at)
        SELECT sha256, 'alice', blob_id, '', '', 3, now(), CASE WHEN sha256 <> 'unsent' THEN now() END FROM blobs"""


class Objects:
    """A bucket that has the bytes of all blobs but the missing ones; `meanwhile` runs when it is listed."""

    def __init__(self, blobs: list[str], *missing: str, meanwhile: Any = None) -> None:
        self.keys = {key_of(one): 3 for one in blobs if one not in missing}
        self._meanwhile, self._loop = meanwhile, asyncio.get_running_loop()

    def sizes(self) -> dict[str, int]:
        if self._meanwhile is not None:
            asyncio.run_coroutine_threadsafe(self._meanwhile(), self._loop).result()
        return self.keys


async def fill(data: Any) -> list[str]:
    """Store three messages with a file each, and a file that nobody sent; return the ids of the blobs."""
    await data.store.execute(LOG)
    await data.files.execute(FILES)
    return [row["blob_id"] for row in await data.files.fetch("SELECT blob_id FROM blobs ORDER BY sha256")]


async def look(data: Any, bucket: Any, **options: bool) -> Verdict:
    with steps() as shown:
        return await verify.stores(data.logins, bucket, None, shown, **options)


async def test_a_file_that_was_removed_on_purpose_is_told_from_a_lost_one(data: Any) -> None:
    bucket: Any = Objects(await fill(data))
    await removal.remove(data.files, ["deleted", "unsent"])
    await data.files.execute("DELETE FROM files WHERE file_id = 'lost'")

    assert (await look(data, bucket)).findings == ["messages carry the file lost, which file-api has lost"]
    assert [tuple(row) for row in await data.files.fetch("SELECT file_id FROM removed_files")] == [("deleted",)]


async def test_what_is_lost_for_ever_is_accepted_once_and_never_named_again(data: Any) -> None:
    bucket: Any = Objects(await fill(data))
    await data.files.execute("DELETE FROM files WHERE file_id = 'lost'")

    accepted = await look(data, bucket, accept_lost=True)

    assert (accepted.findings, accepted.counts["lost files accepted"]) == ([], 1)
    assert (await look(data, bucket, accept_lost=True)).counts["lost files accepted"] == 0
    await data.files.execute("DELETE FROM files WHERE file_id = 'kept'")
    assert (await look(data, bucket)).findings == ["messages carry the file kept, which file-api has lost"]


@pytest.mark.parametrize(
    "gone", ["UPDATE messages SET recalled_at = 1 WHERE seq = 3", "DELETE FROM messages WHERE seq = 3"]
)
async def test_a_message_that_goes_while_verify_looks_is_no_finding(
    data: Any, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    bucket: Any = Objects(await fill(data))
    await data.files.execute("DELETE FROM files WHERE file_id = 'lost'")
    missing_files = tables.missing_files

    async def then_the_message_goes(*arguments: Any) -> list[str]:
        found = await missing_files(*arguments)
        await data.store.execute(gone)
        return found

    monkeypatch.setattr(tables, "missing_files", then_the_message_goes)
    assert (await look(data, bucket)).findings == []


async def test_bytes_that_go_with_their_row_while_verify_looks_are_no_finding(data: Any) -> None:
    deleted, kept, *_ = blobs = await fill(data)

    async def delete() -> None:
        await removal.remove(data.files, ["deleted"])

    bucket: Any = Objects(blobs, deleted, kept, meanwhile=delete)
    assert (await look(data, bucket)).findings == [f"{key_of(kept)} is not in S3"]


async def test_bytes_that_go_after_the_listing_are_missing_and_end_no_run(data: Any, s3_settings: S3Settings) -> None:
    blobs = await fill(data)
    with opened(s3_settings) as bucket:
        listed: Any = Objects(blobs)
        listed.digest = bucket.digest
        findings = (await look(data, listed, read_bytes=True)).findings

    assert sorted(findings) == sorted(f"{key_of(one)} is not in S3" for one in blobs)

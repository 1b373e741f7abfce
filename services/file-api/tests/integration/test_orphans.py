"""Files that nobody sent, and what has a row without an object or an object without a row."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from file_api.files import new_file_id, object_key, thumbnail_key
from file_api.inspect.inspection import ThumbnailSize
from file_api.keep.orphans import Orphans, Report
from file_api.keep.storage import open_storage
from file_api.maintain import main
from file_api.repository import transactions
from PIL import Image
from tlim_protocol.events import FileQuestion, FilesQuestion
from tlim_protocol.subjects import Rpc
from tlim_runtime.database import Database

MONTH, SOON = timedelta(days=30), timedelta(0)


@pytest_asyncio.fixture
async def orphans(servers: Any, request: pytest.FixtureRequest) -> AsyncIterator[Orphans]:
    settings = servers.settings()
    database = Database(servers.database_url)
    async with open_storage(
        endpoint_url=settings.s3_endpoint_url, bucket=settings.s3_bucket, region=settings.s3_region,
        access_key=settings.s3_access_key.get_secret_value(), secret_key=settings.s3_secret_key.get_secret_value(),
    ) as storage:  # fmt: skip
        yield Orphans(transactions(database), storage, getattr(request, "param", MONTH), grace=SOON)
    await database.close()


async def upload(world: Any, content: bytes, user_id: str = "alice") -> str:
    async with world.client(user_id) as client:
        identifier: str = (await client.post("/v1/files", content=content)).json()["file_id"]
    return identifier


async def make_old(world: Any, *file_ids: str) -> None:
    await world.rows("UPDATE files SET stored_at = now() - interval '31 days' WHERE file_id = ANY($1)", file_ids)


async def files(world: Any) -> set[str]:
    return {row["file_id"] for row in await world.rows("SELECT file_id FROM files")}


class TestUnsent:
    async def test_a_file_that_was_never_sent_goes_after_its_time(self, world: Any, orphans: Orphans) -> None:
        sent, unsent, young = [await upload(world, content) for content in (b"sent", b"unsent", b"young")]
        question = FilesQuestion(asks=[FileQuestion(file_id=sent, user_id="alice")])
        await world.tests.request(Rpc.FILE_CHECK, question.to_bytes(), timeout_s=30)
        await make_old(world, sent, unsent)
        assert await orphans.drop_unsent() == 1
        assert await files(world) == {sent, young}
        await world.app.state.disposal.sweep()
        assert sorted(world.bucket.objects()) == sorted(map(object_key, (sent, young)))

    async def test_bytes_that_somebody_else_has_stay(self, world: Any, orphans: Orphans) -> None:
        first, second = await upload(world, b"same"), await upload(world, b"same", "bob")
        await make_old(world, first)
        assert await orphans.drop_unsent() == 1
        async with world.client("bob") as bob:
            assert (await bob.get(f"/v1/files/{second}")).content == b"same"

    @pytest.mark.parametrize("orphans", [timedelta(0)], indirect=True)
    async def test_nothing_goes_where_it_is_switched_off(self, world: Any, orphans: Orphans) -> None:
        file_id = await upload(world, b"kept")
        await make_old(world, file_id)
        assert await orphans.drop_unsent() == 0
        assert await files(world) == {file_id}


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(data, "PNG")
    return data.getvalue()


async def all_is_well(world: Any) -> None:
    """A file with a thumbnail, a running upload, and an object that waits to be removed."""
    file_id = await upload(world, picture())
    async with world.client("alice") as alice:
        assert (await alice.get(f"/v1/files/{file_id}/thumbnail")).status_code == 200
        begun = (await alice.post("/v1/uploads", json={"name": "a", "size": 20_000_000})).json()
        assert begun["part_count"] > 1
    key = object_key(new_file_id())
    world.bucket.put(key)
    await world.rows("INSERT INTO discarded VALUES ($1, now() + interval '1 day')", key)


async def test_what_matches_is_left_alone(world: Any, orphans: Orphans) -> None:
    await all_is_well(world)
    before = sorted(world.bucket.objects()), world.bucket.unfinished()
    assert await orphans.reconcile(remove=True) == Report()
    await world.app.state.disposal.sweep()
    assert (sorted(world.bucket.objects()), world.bucket.unfinished()) == before


async def test_what_does_not_match_is_told_and_removed_only_when_asked_for(world: Any, orphans: Orphans) -> None:
    lost, stray, begun, pictured, gone = (new_file_id() for _ in range(5))
    strays = [object_key(stray), thumbnail_key(pictured, ThumbnailSize.SMALL), object_key(begun)]
    for key in (*strays[:2], object_key(lost), "backup/of-somebody-else"):
        world.bucket.put(key)
    world.bucket.begin(object_key(begun))
    add = "INSERT INTO blobs (blob_id, sha256, size, stored_at, scan) VALUES ($1, $1, 5, now(), 'skipped')"
    await world.rows(add, lost)
    await world.rows(add, gone)
    await world.rows("INSERT INTO files VALUES ($1, 'alice', '', 'text/plain', 5, now(), $1)", gone)
    kept = await upload(world, b"kept")

    report = await orphans.reconcile(remove=False)
    assert report == Report([lost], strays, [], [gone])
    assert await world.rows("SELECT * FROM discarded") == []
    assert await orphans.reconcile(remove=True) == report
    await world.app.state.disposal.sweep()
    assert sorted(world.bucket.objects()) == ["backup/of-somebody-else", object_key(kept)]
    assert world.bucket.unfinished() == []
    assert await orphans.reconcile(remove=False) == Report([], [], [], [gone])


async def test_operators_do_it_from_the_command_line(
    servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in servers.environment().items():
        monkeypatch.setenv(name, value)
    waiting = "INSERT INTO blobs (blob_id, sha256, size, stored_at, scan, scan_due_at)"
    await servers.rows(f"{waiting} VALUES ($1, 'x', 5, now(), 'waiting', now())", unused := new_file_id())

    assert await asyncio.to_thread(main, ["release-quarantine"]) == 0
    assert json.loads(capsys.readouterr().out) == {"released": 1}
    assert await asyncio.to_thread(main, ["reconcile", "--remove"]) == 0
    assert json.loads(capsys.readouterr().out)["unused_blobs"] == [unused]
    assert await servers.rows("SELECT * FROM blobs") == []

    monkeypatch.setenv("TLIM_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    assert await asyncio.to_thread(main, ["reconcile"]) == 1
    assert "S3" in capsys.readouterr().err

"""Processes that were killed between row and object, and servers that are away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from file_api.app import create_app
from file_api.files import NewUpload, Upload, new_file_id, object_key
from file_api.keep.disposal import Disposal
from file_api.keep.storage import Storage, StorageUnavailable, open_storage
from file_api.repository import Transaction, transactions
from file_api.running import Running
from file_api.service import FileService
from file_api.settings import Settings
from file_api.upload.admission import Admission
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import FileEvent
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_runtime.database import Database
from tlim_runtime.throttle import Throttle

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


@pytest.fixture
def changed_settings() -> dict[str, Any]:
    return {"sweep_interval": timedelta(seconds=0.1)}


Process = tuple[FileService, Disposal]


@asynccontextmanager
async def create_services(servers: Any, count: int, **changes: Any) -> AsyncIterator[list[Process]]:
    """The rules alone, as `count` processes would have them."""
    settings = servers.settings(**changes)
    database = Database(servers.database_url)
    async with open_storage(
        endpoint_url=settings.s3_endpoint_url, bucket=settings.s3_bucket, region=settings.s3_region,
        access_key=settings.s3_access_key.get_secret_value(), secret_key=settings.s3_secret_key.get_secret_value(),
    ) as storage:  # fmt: skip
        yield [_process(settings, transactions(database), storage) for _ in range(count)]
    await database.close()


def _process(settings: Settings, transaction: Transaction, storage: Storage) -> Process:
    disposal = Disposal(transaction, storage)
    throttle = Throttle(settings.uploads_per_user, "user")
    running = Running("uploads", per_user=settings.running_uploads_per_user, at_most=settings.running_uploads)
    admission = Admission(transaction, running, throttle, quota_bytes=settings.user_quota_bytes)
    limits = settings.model_dump(include={"max_upload_bytes", "upload_timeout", "pending_expiry"})
    return FileService(transaction, storage, disposal, admission, _nobody_hears, **limits), disposal


async def _nobody_hears() -> None:
    pass


async def leave_behind(servers: Any, began: datetime) -> str:
    """Do what `upload` does first, then nothing: as a process that is killed."""
    file_id = new_file_id()
    database = Database(servers.database_url)
    async with transactions(database)() as tables:
        await tables.uploads.begin(NewUpload(file_id, "alice", began, began + timedelta(hours=12)))
    await database.close()
    return file_id


async def test_an_object_that_s3_does_not_let_go_keeps_no_other(servers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = "files/aa/old", "files/bb/new"
    open_transactions = (
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    await servers.rows("INSERT INTO discarded VALUES ($1, $3), ($2, now())", old, new, LONG_AGO)
    async with create_services(servers, 1) as [(_, disposal)]:
        let_go = disposal._storage.discard

        async def discard(key: str) -> None:
            assert await servers.rows(open_transactions) == []  # S3 may take longer than PostgreSQL lets them be idle
            if key == old:
                raise StorageUnavailable("S3: it is locked")
            await let_go(key)

        monkeypatch.setattr(disposal._storage, "discard", discard)
        with pytest.raises(StorageUnavailable):
            await disposal.sweep()
        assert await disposal.sweep() == 1
    assert [row["object_key"] for row in await servers.rows("SELECT object_key FROM discarded")] == [old]


async def test_a_row_without_an_object_is_swept(servers: Any, world: Any) -> None:
    await leave_behind(servers, LONG_AGO)
    await world.nothing_left()


async def test_an_object_whose_row_is_still_pending_is_swept(servers: Any, world: Any) -> None:
    world.bucket.put(object_key(await leave_behind(servers, datetime.now(UTC))))
    await world.rows("UPDATE uploads SET expires_at = $1", LONG_AGO)
    await world.nothing_left()


async def test_parts_of_an_unfinished_upload_are_swept(servers: Any, world: Any) -> None:
    world.bucket.begin(object_key(await leave_behind(servers, datetime.now(UTC))))
    await world.rows("UPDATE uploads SET expires_at = $1", LONG_AGO)
    await world.nothing_left()


async def test_what_a_killed_process_left_is_swept_by_the_next_one_at_its_start(servers: Any) -> None:
    servers.bucket.put(object_key(await leave_behind(servers, LONG_AGO)))
    app = create_app(servers.settings())
    async with servers.running(app):
        await servers.nothing_left()


async def test_running_uploads_and_stored_files_are_left_alone(servers: Any, world: Any) -> None:
    running = await leave_behind(servers, datetime.now(UTC))
    async with world.client("alice") as alice:
        stored = (await alice.post("/v1/files", content=b"stored")).json()["file_id"]
        await world.rows("UPDATE files SET stored_at = $1", LONG_AGO)
        assert await world.app.state.disposal.sweep() == 0
        assert (await alice.get(f"/v1/files/{stored}")).content == b"stored"
    assert [row["upload_id"] for row in await world.rows("SELECT upload_id FROM uploads")] == [running]
    assert world.bucket.objects() == [object_key(stored)]


async def test_several_sweepers_share_the_work(servers: Any) -> None:
    for _ in range(6):
        servers.bucket.put(object_key(await leave_behind(servers, LONG_AGO)))
    async with create_services(servers, 2) as ((_, one), (_, other)):
        assert sum(await asyncio.gather(one.sweep(), other.sweep())) == 6
    await servers.nothing_left()


async def test_an_upload_that_was_swept_meanwhile_is_refused_and_leaves_no_object(servers: Any) -> None:
    async with create_services(servers, 1) as ((service, disposal),):

        async def slow() -> AsyncIterator[bytes]:
            yield b"first"
            await servers.rows("UPDATE uploads SET expires_at = $1", LONG_AGO)
            assert await disposal.sweep() == 1
            yield b"second"

        with pytest.raises(Exception, match=ErrorCode.UNAVAILABLE):
            await service.upload("alice", Upload(None, None, slow()))
    await servers.nothing_left()


async def test_an_upload_that_takes_too_long_is_given_up(servers: Any) -> None:
    async def never_ending() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async with create_services(servers, 1, upload_timeout=timedelta(seconds=0.2)) as ((service, _),):
        with pytest.raises(Exception, match="too long"):
            await service.upload("alice", Upload(None, None, never_ending()))
    await servers.nothing_left()


class TestWithoutS3:
    @pytest.fixture
    def changed_settings(self) -> dict[str, Any]:
        return {"s3_endpoint_url": "http://127.0.0.1:9"}  # discard: nobody listens there

    async def test_uploads_and_downloads_are_503_and_readiness_is_red(self, world: Any) -> None:
        stored = new_file_id()
        await world.rows(
            "WITH blob AS (INSERT INTO blobs (blob_id, sha256, size, stored_at, scan)"
            " VALUES ($1, 'digest', 5, now(), 'skipped')) INSERT INTO files (file_id, owner_id, blob_id, name,"
            " media_type, size, stored_at) VALUES ($1, 'alice', $1, '', 'text/plain', 5, now())",
            stored,
        )
        async with world.client("alice") as alice:
            *answers, ready = await asyncio.gather(  # each of them tries S3 for two seconds and more
                alice.post("/v1/files", content=b"bytes"),
                alice.post("/p/upload/mobileFileUpload", content=b"bytes"),
                alice.get(f"/v1/files/{stored}"),
                alice.get(f"/p/upload/mobileFileDownload?fileId={stored}"),
                alice.get("/readyz"),
            )
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, ErrorCode.UNAVAILABLE)] * 4
        assert ready.status_code == 503
        assert ready.json()["checks"]["storage"] != "ok"
        assert [row["file_id"] for row in await world.rows("SELECT file_id FROM files")] == [stored]
        assert await world.rows("SELECT * FROM outbox") == []

    async def test_a_failed_upload_reserves_nothing_and_is_removed_when_s3_has_settled(self, world: Any) -> None:
        async with world.client("alice") as alice:
            answers = await asyncio.gather(*(alice.post("/v1/files", content=bytes(1_000)) for _ in range(2)))
            assert [answer.status_code for answer in answers] == [503, 503]
            assert (await alice.get("/v1/files/usage")).json()["reserved_bytes"] == 0
        assert await world.rows("SELECT * FROM uploads") == []
        later = "SELECT object_key FROM discarded WHERE not_before > now() + interval '5 minutes'"
        assert len(await world.rows(later)) == 2


async def test_a_download_does_not_wait_for_the_broker(world: Any) -> None:
    async with world.client("alice") as alice:
        file_id = (await alice.post("/v1/files", content=b"bytes")).json()["file_id"]
        await world.tests.api(f"STREAM.DELETE.{StreamName.FILES}")
        assert (await alice.get(f"/v1/files/{file_id}")).content == b"bytes"
    waiting = [
        FileEvent.from_bytes(row["payload"]) for row in await world.rows("SELECT payload FROM outbox ORDER BY id")
    ]
    assert waiting[-1].msg_type is MsgType.FILE_DOWNLOADED

"""Many requests of one person at once do not take the places of others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from file_api.keep.storage import Storage, StorageUnavailable
from file_api.upload.parts import PartStorage
from tlim_protocol.errors import ErrorCode
from tlim_runtime.turns import WAITING

AT_ONCE = 2
REFUSED = 4
MANY = AT_ONCE + WAITING + REFUSED
ID = "0" * 32
DOORS = (
    f"/v1/files/{ID}/info", f"/v1/files/{ID}", f"/v1/files/{ID}/url", f"/v1/files/{ID}/thumbnail",
    f"/p/upload/mobileFileDownload?fileId={ID}",
)  # fmt: skip


@pytest.fixture
def changed_settings() -> dict[str, Any]:
    return {"requests_at_once_per_user": AT_ONCE}


@asynccontextmanager
async def nobody_looks_at_files(world: Any) -> AsyncIterator[None]:
    blocker = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE files IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await blocker.close()


@pytest.mark.parametrize("door", DOORS)
async def test_a_few_requests_of_one_person_run_a_few_wait_and_the_rest_are_refused(
    world: Any, eventually: Any, door: str
) -> None:
    async with world.client("alice") as alice, world.client("bob") as bob:
        async with nobody_looks_at_files(world):
            asked = [asyncio.create_task(alice.get(door)) for _ in range(MANY)]

            async def some_are_refused() -> None:
                assert sum(one.done() for one in asked) == REFUSED

            await eventually(some_are_refused)
            refused = next(one.result() for one in asked if one.done())
            assert (refused.status_code, refused.json()["code"]) == (429, ErrorCode.TOO_MANY_REQUESTS)
            assert int(refused.headers["Retry-After"]) > 0
            assert (await bob.get("/v1/uploads")).status_code == 200
        statuses = Counter([(await one).status_code for one in asked])
    assert statuses[429] == REFUSED


@dataclass
class HungS3:
    """S3 answers nothing until `over`."""

    asked: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def hang(self, *_: object) -> None:
        self.asked += 1
        await self.over.wait()
        raise StorageUnavailable("it hung")


DOORS_TO_S3 = (
    ("POST", "/v1/uploads"), ("GET", "/v1/uploads/{upload}"), ("DELETE", "/v1/uploads/{upload}"),
    ("DELETE", "/v1/files/{file}"),
)  # fmt: skip


@pytest.mark.parametrize(("method", "door"), DOORS_TO_S3)
async def test_a_hung_s3_keeps_nobody_from_what_needs_none(
    world: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, method: str, door: str
) -> None:
    declared = {"name": "a.bin", "size": 1}
    s3 = HungS3()
    async with world.client("alice") as alice:
        uploads = [(await alice.post("/v1/uploads", json=declared)).json()["upload_id"] for _ in range(AT_ONCE)]
        files = [(await alice.post("/v1/files", content=bytes([one]))).json()["file_id"] for one in range(AT_ONCE)]
        monkeypatch.setattr(PartStorage, "begin", s3.hang)
        monkeypatch.setattr(PartStorage, "listed", s3.hang)
        monkeypatch.setattr(Storage, "discard", s3.hang)
        paths = [door.format(upload=upload, file=file) for upload, file in zip(uploads, files, strict=True)]
        waiting = [asyncio.create_task(alice.request(method, path, **_body(method, declared))) for path in paths]

        async def all_hang() -> None:
            assert s3.asked == AT_ONCE

        await eventually(all_hang)
        assert (await alice.get("/v1/files/usage")).status_code == 200
        assert (await alice.get("/v1/uploads")).status_code == 200
        s3.over.set()
        await asyncio.gather(*waiting)


def _body(method: str, declared: dict[str, Any]) -> dict[str, Any]:
    return {"json": declared} if method == "POST" else {}

"""The process is killed again and again while people upload: nothing that was answered is lost."""

import asyncio
import hashlib
import random
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from file_api.keep.disposal import Disposal
from file_api.keep.orphans import Orphans, Report
from file_api.keep.storage import open_storage
from file_api.repository import transactions
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed
from tlim_runtime.database import Database

KILLS = 3
CONTENTS = [bytes([number]) * size for number, size in enumerate((10, 10_000, 1_000_000, 9_000_000, 9_000_000))]
UPLOAD = "/p/upload/mobileFileUpload?user_id={}"


class Person:
    """Uploads the same few contents over and over, and remembers the answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has: dict[str, bytes] = {}
        self._choices = random.Random(name)  # noqa: S311 - a test that can be repeated

    async def work(self, port: int) -> None:
        """Until the process is killed."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            with suppress(httpx.TransportError):
                while True:
                    content = self._choices.choice(CONTENTS)
                    answer = await client.post(UPLOAD.format(self.name), content=content)
                    if answer.is_success:
                        self.has[answer.text] = content


async def s3_is_at_rest(servers: Any) -> None:
    """Wait until S3 has done what it was asked for before the kill: the same is there twice, a second apart.

    In production it has ten minutes (SETTLED in disposal.py). S3 does not tell what it has in hand.
    """
    there: tuple[list[str], list[str]] | None = None
    async for attempt in AsyncRetrying(stop=stop_after_delay(60), wait=wait_fixed(1), reraise=True):
        with attempt:
            before, there = there, (servers.bucket.objects(), servers.bucket.unfinished())
            assert there == before


async def all_agrees(servers: Any) -> Report:
    """Sweep as it would be done later, then compare rows and objects."""
    settings = servers.settings()
    database = Database(servers.database_url)
    await servers.rows("UPDATE uploads SET expires_at = now() - interval '1 second'")
    # What the killed process was removing is left to it for five minutes: neither gone nor due yet.
    await servers.rows("UPDATE discarded SET not_before = now()")
    async with open_storage(
        endpoint_url=settings.s3_endpoint_url, bucket=settings.s3_bucket, region=settings.s3_region,
        access_key=settings.s3_access_key.get_secret_value(), secret_key=settings.s3_secret_key.get_secret_value(),
    ) as storage:  # fmt: skip
        await Disposal(transactions(database), storage).sweep()
        orphans = Orphans(transactions(database), storage, timedelta(0), grace=timedelta(0))
        report = await orphans.reconcile(remove=False)
    await database.close()
    return report


@pytest.mark.timeout(600)
async def test_what_was_answered_is_there_and_nothing_else(servers: Any, eventually: Any) -> None:
    people = [Person(name) for name in ("alice", "bob", "carol", "dave")]
    for _ in range(KILLS):
        service = await servers.start_process(uploads_per_user="100000/minute")
        had = sum(len(person.has) for person in people)
        work = [asyncio.create_task(person.work(servers.port)) for person in people]

        async def in_the_middle(enough: int = had + 10) -> None:
            assert sum(len(person.has) for person in people) >= enough

        await eventually(in_the_middle)
        service.kill()
        await service.wait()
        await asyncio.gather(*work)
        await s3_is_at_rest(servers)
        assert await all_agrees(servers) == Report()

    assert len(servers.bucket.objects()) <= len(CONTENTS)
    assert await servers.rows("SELECT * FROM discarded") == []
    service = await servers.start_process()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{servers.port}", timeout=60) as client:
        for person in people:
            for file_id, content in person.has.items():
                address = f"/p/upload/mobileFileDownload?fileId={file_id}&user_id={person.name}"
                got = (await client.get(address)).content
                assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()
    service.terminate()
    await service.wait()

"""Worker processes: fed, limited, ended."""

import asyncio
import io
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from file_api.inspect import inspector
from file_api.inspect.inspection import (
    MAX_PIXELS,
    MAX_WORKER_BYTES,
    Facts,
    Inspected,
    Kind,
    ThumbnailSize,
    UnsuitableError,
)
from file_api.inspect.inspector import Inspector, WorkerLost
from PIL import Image


async def fed(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


def picture(form: str, size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 100).convert("RGB").save(out, form)
    return out.getvalue()


async def test_a_worker_makes_a_thumbnail_of_what_it_is_fed() -> None:
    found = await Inspector(1).inspect(Kind.IMAGE, fed(picture("JPEG", (1600, 1200))), ThumbnailSize.MEDIUM)
    assert found.facts == Facts(1600, 1200)
    assert found.thumbnail is not None
    with Image.open(io.BytesIO(found.thumbnail.data)) as shown:
        assert (shown.size, found.thumbnail.media_type) == ((320, 240), "image/jpeg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
async def test_the_largest_image_of_each_format_stays_within_the_limits(form: str) -> None:
    out, side = io.BytesIO(), math.isqrt(MAX_PIXELS)
    Image.new("P" if form == "GIF" else "RGB", (side, side)).save(out, form)
    found = await Inspector(1).inspect(Kind.IMAGE, fed(out.getvalue()), ThumbnailSize.LARGE)
    assert found.facts == Facts(side, side)


async def test_who_asks_for_many_leaves_a_worker_to_others() -> None:
    two, running, over = Inspector(2), asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        running.set()
        await over.wait()
        yield b""

    flood = [asyncio.create_task(two.inspect(Kind.IMAGE, slow(), ThumbnailSize.LARGE, "mallory")) for _ in range(2)]
    await running.wait()
    found = await two.inspect(Kind.IMAGE, fed(picture("PNG", (20, 10))), ThumbnailSize.LARGE, "bob")
    assert found.facts == Facts(20, 10)
    over.set()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_more_files_than_workers_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspector, "_MAX_WAIT_SECONDS", 600)  # a worker's start takes seconds on a busy machine
    alone, recording = Inspector(1), b"#!AMR\n" + 50 * (b"\x3c" + bytes(31))
    found = await asyncio.gather(*(alone.inspect(Kind.AUDIO, fed(recording)) for _ in range(3)))
    assert found == 3 * [Inspected(Facts(duration_ms=1000))]


async def test_what_the_worker_cannot_read_is_unsuitable() -> None:
    with pytest.raises(UnsuitableError, match="as an image"):
        await Inspector(1).inspect(Kind.IMAGE, fed(b"nonsense"))


async def test_a_source_that_fails_is_not_the_files_fault_and_frees_the_worker() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise OSError("S3 is away")

    alone = Inspector(1)
    for _ in range(2):
        with pytest.raises(OSError, match="S3"):
            await alone.inspect(Kind.IMAGE, broken())


def workers() -> list[int]:
    children = [task / "children" for task in Path("/proc/self/task").iterdir()]
    found = [int(pid) for listed in children for pid in listed.read_text().split()]
    return [pid for pid in found if b"file_api.inspect.pictures" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGKILL, WorkerLost), (signal.SIGTERM, WorkerLost), (signal.SIGSEGV, UnsuitableError)],
)
async def test_only_a_crash_is_the_files_fault(number: signal.Signals, raised: type[Exception]) -> None:
    async def shot() -> AsyncIterator[bytes]:
        yield b"first"
        (worker,) = workers()
        os.kill(worker, number)
        yield b"second"

    with pytest.raises(raised):
        await Inspector(1).inspect(Kind.IMAGE, shot())


async def test_a_broken_installation_is_not_the_files_fault_and_its_error_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(inspector._PROGRAMS, Kind.IMAGE, "file_api.inspect.nothing")
    with pytest.raises(WorkerLost, match="No module named"):
        await Inspector(1).inspect(Kind.IMAGE, fed(b"nonsense"))


async def test_a_worker_that_cannot_be_started_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerLost, match="started"):
        await Inspector(1).inspect(Kind.IMAGE, fed(b"nonsense"))


async def test_a_worker_that_takes_too_much_processor_time_says_so_by_its_end() -> None:
    busy = "from file_api.inspect import worker; r = worker.resource; worker._LIMITS[r.RLIMIT_CPU] = (1, 6);"
    busy += "worker.work(lambda _: [None for _ in iter(int, 1)])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", busy, stdin=asyncio.subprocess.DEVNULL)
    assert await process.wait() == -signal.SIGXCPU


async def test_a_slow_source_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    monkeypatch.setattr(inspector, "_MAX_SECONDS", 0.2)
    alone = Inspector(1)
    for _ in range(2):
        with pytest.raises(WorkerLost, match="in time"):
            await alone.inspect(Kind.IMAGE, slow())


async def test_a_worker_that_needs_too_much_memory_ends_and_the_service_does_not() -> None:
    async def endless() -> AsyncIterator[bytes]:
        # as if the limit of bytes were not kept: the kernel's limits are the last line
        for _ in range(MAX_WORKER_BYTES // 2**20):
            yield bytes(2**20)

    with pytest.raises(UnsuitableError):
        await Inspector(1).inspect(Kind.IMAGE, endless())

"""Worker processes: fed, limited, ended."""

import asyncio
import io
from collections.abc import AsyncIterator

import pytest
from file_api.inspection import MAX_WORKER_BYTES, Facts, Inspected, Kind, ThumbnailSize, UnsuitableError
from file_api.inspector import Inspector
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


async def test_more_files_than_workers_wait_for_their_turn() -> None:
    inspector, recording = Inspector(1), b"#!AMR\n" + 50 * (b"\x3c" + bytes(31))
    found = await asyncio.gather(*(inspector.inspect(Kind.AUDIO, fed(recording)) for _ in range(3)))
    assert found == 3 * [Inspected(Facts(duration_ms=1000))]


async def test_what_the_worker_cannot_read_is_unsuitable() -> None:
    with pytest.raises(UnsuitableError, match="as an image"):
        await Inspector(1).inspect(Kind.IMAGE, fed(b"nonsense"))


async def test_a_source_that_fails_is_not_the_files_fault_and_frees_the_worker() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise OSError("S3 is away")

    inspector = Inspector(1)
    for _ in range(2):
        with pytest.raises(OSError, match="S3"):
            await inspector.inspect(Kind.IMAGE, broken())


async def test_a_worker_that_needs_too_much_memory_ends_and_the_service_does_not() -> None:
    async def endless() -> AsyncIterator[bytes]:
        # as if the limit of bytes were not kept: the kernel's limits are the last line
        for _ in range(MAX_WORKER_BYTES // 2**20):
            yield bytes(2**20)

    with pytest.raises(UnsuitableError):
        await Inspector(1).inspect(Kind.IMAGE, endless())

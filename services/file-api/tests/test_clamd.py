"""The client of clamd, against clamd itself where it is installed, and against what speaks like it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from file_api.keep.clamd import Clamd, ScanFailedError, ScannerUnavailable

MINUTE = timedelta(minutes=1)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 50):
        yield data[start : start + 50]


async def zeros(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(1_000_000)


async def test_a_virus_is_found_also_across_chunks(scanner_socket: Path, virus: bytes) -> None:
    clamd = Clamd(scanner_socket, MINUTE)
    assert await clamd.scan(pieces(bytes(10) + virus + bytes(100))) == "Test.Eicar.UNOFFICIAL"
    assert await clamd.scan(pieces(b"harmless" * 1_000)) is None
    assert await clamd.scan(zeros(0)) is None


async def test_what_is_too_large_for_it_is_no_outage(scanner_socket: Path) -> None:
    with pytest.raises(ScanFailedError, match="size limit"):
        await Clamd(scanner_socket, MINUTE).scan(zeros(12))


async def test_without_clamd_it_is_an_outage(folder: Path) -> None:
    for address in (folder / "nobody.sock", ("127.0.0.1", 9)):
        with pytest.raises(ScannerUnavailable):
            await Clamd(address, MINUTE).scan(zeros(1))


async def test_an_answer_that_does_not_come_in_time_is_an_outage(folder: Path, fake_clamd: Any) -> None:
    fake_clamd.open.clear()
    async with fake_clamd.listening(folder / "clamd.sock") as socket:
        with pytest.raises(ScannerUnavailable):
            await Clamd(socket, timedelta(seconds=0.1)).scan(zeros(1))
        fake_clamd.open.set()


async def test_a_clamd_that_dies_in_the_middle_is_an_outage(folder: Path, fake_clamd: Any) -> None:
    async with fake_clamd.listening(folder / "clamd.sock") as socket:

        async def broken() -> AsyncIterator[bytes]:
            yield b"first"
            await fake_clamd.connected.wait()
            fake_clamd.connections.pop().close()
            for _ in range(100):
                yield bytes(1_000_000)

        with pytest.raises(ScannerUnavailable):
            await Clamd(socket, MINUTE).scan(broken())


async def test_what_the_data_raises_comes_through(scanner_socket: Path) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("S3")

    with pytest.raises(LookupError):
        await Clamd(scanner_socket, MINUTE).scan(failing())

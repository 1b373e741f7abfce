"""The memory of the real process: when it is idle, and while a file passes through that is larger than its memory.

TLIM_TEST_FILE_MIB=1024 makes the file the 1 GiB of the acceptance test. The default keeps the suite quick. The
figures are logged: --log-cli-level=INFO.

The idle figure is the anonymous memory (RssAnon of /proc/PID/status): what the process holds for itself, and what the
kernel cannot drop. The resident size adds some 29 MB of pages of the interpreter and of libraries. All processes on a
host share those pages. How many share them changes the proportional size (PSS), so a test cannot rely on it.
"""

import hashlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
FILE_MIB = int(os.environ.get("TLIM_TEST_FILE_MIB", "256"))
BLOCK = os.urandom(MIB)


def memory_mib(pid: int, line: str) -> float:
    """Return one line of a process's status in /proc: RssAnon, or VmHWM (the highest resident size so far)."""
    figures = Path(f"/proc/{pid}/status").read_text()
    return next(int(entry.split()[1]) for entry in figures.splitlines() if entry.startswith(f"{line}:")) / 1024


@pytest_asyncio.fixture
async def process(servers: Any) -> AsyncIterator[tuple[int, httpx.AsyncClient]]:
    """The service as it runs in production: its process id and a client."""
    service = await servers.start_process()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{servers.port}", timeout=120) as client:
        yield service.pid, client
    service.terminate()
    assert await service.wait() in {0, -signal.SIGTERM}  # uvicorn ends by the signal that stopped it


async def blocks(head: bytes = b"", tail: bytes = b"") -> AsyncIterator[bytes]:
    yield head
    for _ in range(FILE_MIB):
        yield BLOCK
    yield tail


async def test_an_idle_service_needs_at_most_100_mb(process: tuple[int, httpx.AsyncClient]) -> None:
    idle = memory_mib(process[0], "RssAnon")
    logger.info("idle: %.0f MiB", idle)
    assert idle * MIB <= 100_000_000


@pytest.mark.timeout(900)
async def test_a_large_file_passes_through_in_constant_memory(process: tuple[int, httpx.AsyncClient]) -> None:
    pid, client = process
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="big"\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    path = "/p/upload/mobileFileUpload?user_id=alice"
    sent = await client.post(path, content=blocks(head, b"\r\n--x--\r\n"), headers=form)
    raw = await client.post(path, content=blocks())
    assert (sent.status_code, raw.status_code) == (200, 200)
    received = hashlib.sha256()
    async with client.stream(
        "GET", "/p/upload/mobileFileDownload", params={"fileId": sent.text, "user_id": "alice"}
    ) as answer:
        async for chunk in answer.aiter_raw():
            received.update(chunk)
    expected = hashlib.sha256()
    for _ in range(FILE_MIB):
        expected.update(BLOCK)
    highest = memory_mib(pid, "VmHWM")
    logger.info("%d MiB twice in, once out: at most %.0f MiB", FILE_MIB, highest)
    assert received.digest() == expected.digest()
    assert highest < 150

"""Virus scanners: clamd itself where it is installed, with one signature, and what speaks its INSTREAM."""

import asyncio
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The test file that every scanner finds, harmless by agreement (eicar.org)."""

VIRUS = "Test.Eicar"


@asynccontextmanager
async def real_clamd(program: str, folder: Path) -> AsyncIterator[Path]:
    """A clamd that knows one signature; gives its socket."""
    signatures = folder / "signatures"
    signatures.mkdir(exist_ok=True)
    (signatures / "test.ndb").write_text(f"{VIRUS}:0:*:{EICAR.hex()}\n")
    socket, config = folder / "clamd.sock", folder / "clamd.conf"
    config.write_text(f"DatabaseDirectory {signatures}\nLocalSocket {socket}\nForeground yes\nStreamMaxLength 8M\n")
    process = await asyncio.create_subprocess_exec(
        program, f"--config-file={config}", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while not await _listens(socket):
            assert process.returncode is None, "clamd did not start"
            await asyncio.sleep(0.02)
        yield socket
    finally:
        process.terminate()
        await process.wait()


async def _listens(socket: Path) -> bool:
    """Whether somebody accepts connections there; clamd makes the file a moment before it does."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


class FakeClamd:
    """Speaks INSTREAM on a Unix socket."""

    def __init__(self, max_bytes: int = 8 * 1024 * 1024) -> None:
        self.scanned: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.answer: bytes | None = None
        self.connected = asyncio.Event()
        self.connections: list[asyncio.StreamWriter] = []
        self._max_bytes = max_bytes

    @asynccontextmanager
    async def listening(self, socket: Path) -> AsyncIterator[Path]:
        server = await asyncio.start_unix_server(self._serve, socket)
        try:
            yield socket
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        self.connected.set()
        try:
            assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
            writer.write(await self._verdict(reader) + b"\0")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away
        finally:
            writer.close()

    async def _verdict(self, reader: asyncio.StreamReader) -> bytes:
        data = b""
        while length := struct.unpack("!L", await reader.readexactly(4))[0]:
            data += await reader.readexactly(length)
            if len(data) > self._max_bytes:
                return b"INSTREAM size limit exceeded. ERROR"
        await self.open.wait()
        self.scanned.append(len(data))
        if self.answer is not None:
            return self.answer
        return f"stream: {VIRUS}.UNOFFICIAL FOUND".encode() if EICAR in data else b"stream: OK"


@pytest.fixture
def virus() -> bytes:
    return EICAR


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: that of a socket has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="tlim-") as path:
        yield Path(path)


@pytest.fixture
def fake_clamd() -> FakeClamd:
    return FakeClamd()


@pytest_asyncio.fixture(params=["clamd", "fake"])
async def scanner_socket(request: pytest.FixtureRequest, folder: Path, fake_clamd: FakeClamd) -> AsyncIterator[Path]:
    """The socket of a running scanner, of each kind in turn."""
    program = shutil.which("clamd")
    if request.param == "fake":
        async with fake_clamd.listening(folder / "clamd.sock") as socket:
            yield socket
    elif program is None:
        pytest.skip("clamd is not installed")
    else:
        async with real_clamd(program, folder) as socket:
            yield socket

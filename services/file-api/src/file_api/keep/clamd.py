"""The adapter of the virus scanner: clamd's INSTREAM command (man 8 clamd), over TCP or a Unix socket."""

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from tlim_runtime.background import beside
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import beat

_REPLY = re.compile(r"stream: (?:(?P<finding>.+) FOUND|OK)")


class ScannerUnavailable(Unavailable):
    """clamd is away, or took too long."""


class ScanFailedError(Exception):
    """clamd could not scan this file, and tells the reason. It may still scan other files."""


class Clamd:
    """Scans one stream per connection. `address`: a socket's path, or host and port; `timeout`: for a whole scan."""

    def __init__(self, address: Path | tuple[str, int], timeout: timedelta) -> None:
        self._address = address
        self._timeout = timeout.total_seconds()

    async def scan(self, data: AsyncIterator[bytes]) -> str | None:
        """Return the name of the virus in `data`, None when there is none.

        `data` gives non-empty chunks of less than 4 GiB. Raises ScannerUnavailable, ScanFailedError, or what it raises.
        """
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._ask(data)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise ScannerUnavailable(f"clamd: {error or type(error).__name__}") from error
        matched = _REPLY.fullmatch(reply)
        if matched is None:
            raise ScanFailedError(reply)
        return matched["finding"]

    async def _ask(self, data: AsyncIterator[bytes]) -> str:
        reader, writer = await self._connect()
        # We read from the beginning. When clamd has enough, for example above its StreamMaxLength, it says why and
        # closes. asyncio drops that answer if a write fails before the answer was read.
        async with beside(reader.readuntil(b"\0")) as reply:
            try:
                with contextlib.suppress(ConnectionError):
                    await _send(writer, data, reply)
                return (await reply)[:-1].decode(errors="replace")
            finally:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._address, Path):
            return await asyncio.open_unix_connection(self._address)
        return await asyncio.open_connection(*self._address)


async def _send(writer: asyncio.StreamWriter, data: AsyncIterator[bytes], reply: "asyncio.Task[bytes]") -> None:
    writer.write(b"zINSTREAM\0")
    async for chunk in data:
        if reply.done():
            return
        writer.write(struct.pack("!L", len(chunk)) + chunk)
        await writer.drain()
        beat()
    writer.write(struct.pack("!L", 0))
    await writer.drain()

"""Requests as browsers and old programs send them to the gateway: from another origin, or byte by byte."""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

WEB_ORIGIN = "https://web.example"
"""An origin whose pages may read what the stack answers (TLIM_CORS_ORIGINS)."""


@dataclass(frozen=True)
class RawAnswer:
    """An answer as it came; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document in the answer; for any other answer the test fails."""
        assert self.headers["content-type"] == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


async def connected(server: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a server by its address, http://HOST:PORT, or https with the authorities of SSL_CERT_FILE."""
    url = urlsplit(server)
    tls = ssl.create_default_context() if url.scheme == "https" else None
    return await asyncio.open_connection(url.hostname, url.port, ssl=tls)


async def ask_raw(server: str, method: str, target: str, **headers: str) -> RawAnswer:
    """Send a request to a server, with `target` exactly as it is given, and read the answer to its end.

    Underscores in names of `headers` become hyphens.
    """
    lines = {"Host": "chat.example", "Connection": "close", "Origin": WEB_ORIGIN}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    reader, writer = await connected(server)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    first, *rest = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    pairs = (line.partition(":") for line in rest)
    found = {name.lower(): value.strip() for name, _, value in pairs}
    return RawAnswer(int(first.split()[1]), found, answer.partition(b"\r\n\r\n")[2])

"""Requests as browsers and old programs send them to the gateway: from another origin, or byte by byte."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

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


async def ask_raw(port: int, method: str, target: str, **headers: str) -> RawAnswer:
    """Send a request to loopback, with `target` exactly as it is given, and read the answer to its end.

    Underscores in names of `headers` become hyphens.
    """
    lines = {"Host": "chat.example", "Connection": "close", "Origin": WEB_ORIGIN}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    first, *rest = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    pairs = (line.partition(":") for line in rest)
    found = {name.lower(): value.strip() for name, _, value in pairs}
    return RawAnswer(int(first.split()[1]), found, answer.partition(b"\r\n\r\n")[2])

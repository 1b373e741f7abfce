"""Questions over HTTP: to the services, the gateway, and the API of the XMPP server."""

import asyncio
import time
from collections.abc import Mapping
from functools import cache
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import OpenerDirector, Request

from tlim_runtime.outgoing import opener

TIMEOUT_S = 10.0
"""How long each step of a question may take. Questions that read much of a server have a longer time of their own."""

_REFUSAL_BYTES = 10_000


@cache
def _server(authority: Path | None) -> OpenerDirector:
    return opener(authority=authority)


class Answer:
    """An answer of a server: its status, headers and body, and between which times it came (epoch seconds)."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        within_s: float = TIMEOUT_S,
        authority: Path | None = None,
    ) -> None:
        self.before = time.time()
        method = "GET" if body is None else "POST"
        request = Request(url, body, dict(headers or {}), method=method)  # noqa: S310 - set by operators
        try:
            with _server(authority).open(request, timeout=within_s) as answer:
                self.status, self.headers, self.body = int(answer.status), dict(answer.headers), bytes(answer.read())
        except HTTPError as error:
            with error:
                self.status, self.headers, self.body = error.code, dict(error.headers), error.read(_REFUSAL_BYTES)
        except HTTPException as error:
            raise OSError(f"{type(error).__name__} {error}".strip()) from error
        self.after = time.time()


async def ask(
    url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, *, authority: Path | None = None
) -> Answer:
    """Ask once. Raises OSError when there is no answer, or none of HTTP."""
    return await asyncio.to_thread(Answer, url, headers, body, authority=authority)

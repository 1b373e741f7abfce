"""Requests through the gateway: they carry the token, raise refusals as exceptions, and follow pages."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from types import TracebackType
from typing import Any, BinaryIO, Self, TypedDict, Unpack

import httpx
from tlim_protocol.errors import ErrorCode

from tlim_client.failures import NotReachableError, RefusedError

Json = dict[str, Any]

PAGE = 200
"""How many items are asked for at a time. The server gives no more."""

_CODES = {code.value: code for code in ErrorCode}


@cache
def _authorities() -> ssl.SSLContext:
    """Read once which authorities certificates are checked against. It takes up to 60 ms of the processor."""
    return httpx.create_ssl_context()


class Parts(TypedDict, total=False):
    """What a request may carry besides method and path, in httpx's words."""

    params: Mapping[str, str | int]
    headers: Mapping[str, str]
    json: object
    data: Mapping[str, str]
    content: bytes
    files: Mapping[str, tuple[str, BinaryIO] | tuple[str, BinaryIO, str]]
    timeout: float  # seconds


class Gateway:
    """One user (or nobody, without `token`) at the gateway; every refusal is a RefusedError with its code."""

    def __init__(
        self,
        gateway: str,
        *,
        token: str | None = None,
        timeout: float = 30,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.token = token
        self._http = httpx.AsyncClient(base_url=gateway, timeout=timeout, transport=transport, verify=_authorities())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def open(self, method: str, path: str, **parts: Unpack[Parts]) -> AsyncIterator[httpx.Response]:
        """Send any request and give its answer for any status. The body is not read yet."""
        parts["headers"] = {
            **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
            **parts.get("headers", {}),
        }
        try:
            async with self._http.stream(method, path, **parts) as answer:
                yield answer
        except httpx.TransportError as error:
            where = self._http.base_url
            raise NotReachableError(
                f"the server at {where} does not answer ({error or type(error).__name__})"
            ) from error

    async def ask(self, method: str, path: str, **parts: Unpack[Parts]) -> httpx.Response:
        """Send any request and return its answer for any status. The body is read."""
        async with self.open(method, path, **parts) as answer:
            await answer.aread()
        return answer

    async def call(self, method: str, path: str, **parts: Unpack[Parts]) -> Json:
        """Send a request and return the JSON object of its answer; RefusedError for a problem or a `fail`."""
        answer = await self.ask(method, path, **parts)
        raise_refusal(answer)
        content: Json = answer.json() if answer.content else {}
        return content

    async def pages(self, path: str, **which: str) -> AsyncIterator[Json]:
        """Give the items of all pages of a list. The pages follow an opaque cursor; `which` holds query parameters."""
        cursor: dict[str, str] = {}
        while True:
            page = await self.call("GET", path, params={"limit": PAGE, **which, **cursor})
            for item in page["items"]:
                yield item
            if not page["next_cursor"]:
                return
            cursor = {"cursor": page["next_cursor"]}


def raise_refusal(answer: httpx.Response) -> None:
    """Raise RefusedError for a problem document (RFC 9457), the specification's `fail`, or any other bad status."""
    is_json = "json" in answer.headers.get("Content-Type", "")
    if answer.is_success and not is_json:
        return
    content = answer.json() if is_json and answer.content else {}
    if not isinstance(content, dict):
        return
    if answer.is_success and content.get("result") != "fail":
        return
    code = _CODES.get(content.get("code") or content.get("result_detail") or "")
    detail = content.get("detail") or content.get("title") or answer.reason_phrase
    raise RefusedError(code, str(detail), field=content.get("field"), status=answer.status_code)

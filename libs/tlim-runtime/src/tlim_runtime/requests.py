"""Middleware around every HTTP request: request ids, bodies, unreadable requests, HEAD, and unexpected failures."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars
from tlim_protocol.errors import ErrorCode

from tlim_runtime.errors import LegacyRoute, problem
from tlim_runtime.logging import get_logger

logger = get_logger(__name__)

REQUEST_ID = "X-Request-ID"
CLIENT_REQUEST_ID = "X-Client-Request-ID"
"""The gateway moves a client's own X-Request-ID here. It goes into our logs, beside our own id."""

UNREAD_BODY = "X-Unread-Body"
"""Tells the gateway that an answer came before the end of its request's body; the gateway removes it."""

REST_BYTES = 32 * 1024 * 1024
"""So much is read of the rest of a body. Many clients send a whole body before they read an answer. They would lose
the answer when the connection is closed. Few files are larger."""

REST_S = 5.0
"""How long the rest of a body is read. Nothing but a connection waits meanwhile."""

MAX_HEADERS_BYTES = 64 * 1024
"""The most that all header names and values may have together. A token has 1 or 2 KiB. The gateway lets more through:
so the refusal comes from us, in a form that a browser can read."""

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # a stranger's id of this form may go into our logs and headers


class RequestIdMiddleware:
    """Takes the gateway's request id, or makes one. Logs, answers and `request.state.request_id` have it.

    A client's own id is only noted in the logs, as `client_request_id`: it may be the same for two requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _harmless(headers.get(REQUEST_ID)) or uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        noted = {"request_id": request_id}
        if theirs := _harmless(headers.get(CLIENT_REQUEST_ID)):
            noted["client_request_id"] = theirs

        async def tag(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        with bound_contextvars(**noted):
            await self._app(scope, receive, tag)


def _harmless(given: str | None) -> str | None:
    return given if given is not None and _SAFE_ID.fullmatch(given) else None


class UnreadBodies:
    """Reads what an answer has left of its request's body, up to REST_BYTES and REST_S, before the answer begins.

    If there is more, the answer has UNREAD_BODY, and the gateway closes the client's connection behind it. Otherwise
    Caddy 2.11 would take the rest of the body for the next request: a body could hold a request that its sender may not
    make in the name of others behind the same proxy. A client that waits for leave to send (RFC 9110 section 10.1.1)
    gets its refusal at once, and so does a body that is refused because it is too slow.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if not _has_body(headers):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def watch() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_read:
                if "expect" not in headers and message["status"] != HTTPStatus.REQUEST_TIMEOUT:
                    await _read_rest(watch)
                if not is_read:
                    MutableHeaders(scope=message)[UNREAD_BODY] = "true"
            await send(message)

        await self._app(scope, watch, answer)


async def _read_rest(receive: Receive) -> None:
    left = REST_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(REST_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class ReadableRequests:
    """Refuses requests that no endpoint can read: over MAX_HEADERS_BYTES of headers (431), a compressed body (415)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)


def _refusal(scope: Scope) -> Response | None:
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS_BYTES:
        return problem(431, f"the headers have over {MAX_HEADERS_BYTES} bytes", code=ErrorCode.FIELD_INVALID)
    headers = Headers(scope=scope)
    if not set(_encodings(headers)) - {"identity"} or not _has_body(headers):
        return None
    refusal = problem(415, "no Content-Encoding is understood", code=ErrorCode.UNSUPPORTED, field="Content-Encoding")
    refusal.headers["Accept-Encoding"] = "identity"  # RFC 9110 section 15.5.16
    return refusal


def _encodings(headers: Headers) -> Iterator[str]:
    for line in headers.getlist("content-encoding"):
        yield from (coding.strip().lower() for coding in line.split(",") if coding.strip())


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class HeadMiddleware:
    """Answers HEAD wherever GET is answered (RFC 9110 section 9.3.2); uvicorn sends the answer without its body.

    Not at the specification's addresses: a GET there may create a session or delete one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        asked, as_get = dict(scope), False

        async def watch(message: Message) -> None:
            nonlocal as_get
            as_get = as_get or (_allows_get(message) and not isinstance(asked.get("route"), LegacyRoute))
            if not as_get:
                await send(message)

        await self._app(asked, receive, watch)
        if as_get:
            asked = {**scope, "method": "GET"}
            await self._app(asked, receive, send)
        scope.update(asked, method="HEAD")  # the metrics read it afterwards


def _allows_get(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] != HTTPStatus.METHOD_NOT_ALLOWED:
        return False
    return "GET" in Headers(raw=message["headers"]).get("allow", "").split(", ")


class FailureBoundary:
    """Logs an unexpected exception once, and answers it with a 500 that says nothing about our insides.

    It also replaces the framework's own refusal of a body that is too large: plain text becomes a problem document.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = replaced = False

        async def watch(message: Message) -> None:
            nonlocal started, replaced
            started = started or message["type"] == "http.response.start"
            if not replaced and _is_plain_413(message):
                replaced = True
                detail = "the request body is larger than this address takes"
                await problem(413, detail, code=ErrorCode.FIELD_INVALID)(scope, receive, send)
            elif not replaced:
                await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            logger.exception("request failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # half of the answer is sent: only a broken connection can tell the client
            await problem(500, "the server made a mistake; the request id names it in the logs")(scope, receive, send)


def _is_plain_413(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] != 413:
        return False
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")

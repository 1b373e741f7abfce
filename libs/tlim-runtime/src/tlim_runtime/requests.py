"""What surrounds every HTTP request: its id in logs and answer, and the last boundary for failures."""

import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from tlim_runtime.errors import problem
from tlim_runtime.logging import get_logger

logger = get_logger(__name__)

REQUEST_ID = "X-Request-ID"
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # what may go from a stranger into our logs and headers


class RequestIdMiddleware:
    """Takes the gateway's request id, or makes one; logs and answers carry it, and it is `request.state.request_id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _SAFE_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def tag(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        with bound_contextvars(request_id=request_id):
            await self._app(scope, receive, tag)


class FailureBoundary:
    """Turns what nobody expected into a 500 that says nothing about our insides, and logs it once.

    Also the one refusal that the framework writes itself, as plain text, into a problem document: a body too large.
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
                await problem(413, "the request body is larger than this address takes")(scope, receive, send)
            elif not replaced:
                await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            logger.exception("request failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # the answer is half out: only breaking the connection tells the client
            await problem(500, "the server made a mistake; the request id names it in the logs")(scope, receive, send)


def _is_plain_413(message: Message) -> bool:
    if message["type"] != "http.response.start" or message["status"] != 413:
        return False
    return Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")

"""Request bodies that are read into memory, with limits on their time, size (`max_body_size`) and number of values."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from tlim_protocol.errors import ErrorCode
from tlim_protocol.lenient import check_values, read_strict

from tlim_runtime.errors import HttpRefusal, problem_responses

BODY_S = 10.0
"""How long a whole body may take to arrive. A slower body would hold a connection and memory. 4 MiB at 4 Mbit/s take
8 s."""

MAX_BODY_VALUES = 100_000
"""The most values in a JSON body, because parsing costs time and memory for each. The longest lists that we take, of
30,000 members or of 10,000 parts, have 90,000 values. Without this limit 4 MiB could hold two million."""


BODIES_AT_ONCE = 8
"""Bodies of one user that are read at a time. Each may have 4 MiB, and takes memory until its last byte has come."""

BODIES_WAITING = 100
"""How many more of a user's requests may wait to have their bodies read. They hold a connection and hardly any memory.
It is more than in turns.py, because another system may send many messages in the name of one administrator."""


class BodyTooSlow(HttpRefusal):
    """The request body did not arrive in time: 408."""

    status = 408

    def __init__(self, limit_s: float) -> None:
        super().__init__(ErrorCode.FIELD_INVALID, f"the request body did not arrive within {limit_s:g} s")

    def headers(self) -> dict[str, str]:
        """Return the header that closes the connection: we do not wait for the rest (RFC 9110 section 15.5.9)."""
        return {"Connection": "close"}


@asynccontextmanager
async def body_in_time(limit_s: float | None = None) -> AsyncIterator[None]:
    """Bound the reading of a request's body to `limit_s` seconds, or to BODY_S; raises BodyTooSlow."""
    limit_s = BODY_S if limit_s is None else limit_s
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise BodyTooSlow(limit_s) from None
    except ClientDisconnect:
        raise HTTPException(400, "the client hung up") from None  # nobody hears it


async def read_body(request: Request, limit_s: float | None = None) -> bytes:
    """Return the whole body; `limit_s` and BodyTooSlow as `body_in_time`. Later readers of the request get it, too."""
    async with body_in_time(limit_s):
        return await request.body()


class _ExactRequest(Request):
    """A request whose body has been read; numbers in its JSON are kept as they were written."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body

    async def json(self) -> Any:  # noqa: ANN401 - as Starlette has it
        try:
            return read_strict(self._body)
        except ValueError:
            return await super().json()  # raises the error that the framework expects


class BoundedRoute(APIRoute):
    """A route that reads its JSON body within BODY_S, and parses it only if it has at most MAX_BODY_VALUES values.

    FastAPI itself waits for a body without end. Use as `APIRouter(route_class=BoundedRoute, max_body_size=…)`. In the
    OpenAPI document the 408 is added here.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(path, endpoint, **options)
        if self.body_field is not None:
            self.responses = {**self.responses, **problem_responses(statuses=(BodyTooSlow.status,))}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that reads the body within these limits, and then calls the route's own handler."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read_first(request: Request) -> Response:
            async with self.reading(request):
                body = await read_body(request)
            check_values(body, MAX_BODY_VALUES)
            return await handle(_ExactRequest(request, body))

        return read_first

    @asynccontextmanager
    async def reading(self, request: Request) -> AsyncIterator[None]:  # noqa: ARG002 - for routes that look at it
        """Surround the reading of the body. Raise here to refuse a request before its body is read."""
        yield

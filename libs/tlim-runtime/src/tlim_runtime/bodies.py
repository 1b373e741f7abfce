"""Request bodies that are read into memory: within a time, up to a size (`max_body_size`), and of so many values."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from tlim_protocol.errors import ErrorCode
from tlim_protocol.lenient import check_values, read_strict

from tlim_runtime.errors import HttpRefusal

BODY_S = 10.0
"""For a whole body: 4 MiB at 4 Mbit/s take 8 s. A body that comes more slowly holds a connection and memory."""

MAX_BODY_VALUES = 100_000
"""In a JSON body: the longest lists that an address takes, of 30,000 members or of 10,000 parts, have 90,000. In the
4 MiB of such a body are up to two million."""


class BodyTooSlow(HttpRefusal):
    """The request body did not arrive in time: 408."""

    status = 408

    def __init__(self) -> None:
        super().__init__(ErrorCode.FIELD_INVALID, f"the request body did not arrive within {BODY_S:g} s")

    def headers(self) -> dict[str, str]:
        """Return that the connection ends here: the rest of the body is not waited for (RFC 9110 section 15.5.9)."""
        return {"Connection": "close"}


async def read_body(request: Request) -> bytes:
    """Return the whole body, which later readers of the request get as well; raises BodyTooSlow."""
    try:
        async with asyncio.timeout(BODY_S):
            return await request.body()
    except TimeoutError:
        raise BodyTooSlow from None
    except ClientDisconnect:
        raise HTTPException(400, "the client hung up") from None  # nobody hears it


class _ExactRequest(Request):
    """A request whose body has been read; numbers in its JSON are kept as they were written."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._body = body

    async def json(self) -> Any:  # noqa: ANN401 - as Starlette has it
        try:
            return read_strict(self._body)
        except ValueError:
            return await super().json()  # which says what is wrong with it


class BoundedRoute(APIRoute):
    """A route whose JSON body is read within BODY_S and parsed only when it has at most MAX_BODY_VALUES values.

    FastAPI waits for a body without end. Use as `APIRouter(route_class=BoundedRoute, max_body_size=…)`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler behind the reading of its body."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read_first(request: Request) -> Response:
            await self.before_body(request)
            body = await read_body(request)
            check_values(body, MAX_BODY_VALUES)
            return await handle(_ExactRequest(request, body))

        return read_first

    async def before_body(self, request: Request) -> None:
        """Refuse, by raising, what is not to be read at all."""

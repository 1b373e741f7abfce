"""Turns: a service works on a few requests of one user at a time. A few more wait, and the rest are refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from tlim_protocol.errors import ErrorCode

from tlim_runtime.auth import CurrentUser, current_user
from tlim_runtime.errors import TooManyRequests, problem_responses

WAITING = 20
"""How many requests of one user may wait. An application that opens asks for all its conversations at once."""

_RETRY_AFTER_S = 1  # a turn takes milliseconds

TURN_RESPONSES = problem_responses(ErrorCode.TOO_MANY_REQUESTS)
"""The `responses=` of a router whose requests take turns."""


class _Line:
    """One user's requests: some have their turn, some wait."""

    def __init__(self, at_once: int) -> None:
        self.turns = asyncio.Semaphore(at_once)
        self.length = 0


class Turns:
    """Gives each key at most `at_once` turns at a time, in the order in which they were asked for."""

    def __init__(self, at_once: int, waiting: int = WAITING) -> None:
        self._at_once = at_once
        self._longest = at_once + waiting
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def one(self, key: str) -> AsyncIterator[None]:
        """Wait for a turn and hold it while entered; raises TooManyRequests when too many wait already."""
        line = self._lines.setdefault(key, _Line(self._at_once))
        if line.length >= self._longest:
            raise TooManyRequests(f"{line.length} of your requests are running or waiting", retry_after=_RETRY_AFTER_S)
        line.length += 1
        try:
            async with line.turns:
                yield
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[key]


async def _turn(request: Request, user: Annotated[CurrentUser, Depends(current_user)]) -> AsyncIterator[None]:
    turns: Turns = request.app.state.turns
    async with turns.one(user.user_id):
        yield


IN_TURN = Depends(_turn, scope="function")
"""Use as `APIRouter(dependencies=[IN_TURN], responses=TURN_RESPONSES)`. The caller's turn begins before the request
takes a database connection, and ends after the connection is given back. Otherwise one user's requests could fill the
pool."""

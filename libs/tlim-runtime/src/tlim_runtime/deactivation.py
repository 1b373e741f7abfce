"""Tokens of deactivated users: they would count until they expire, so each service reads who is deactivated."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tlim_protocol.events import UsersDeactivated
from tlim_protocol.subjects import Rpc

from tlim_runtime.auth import TokenVerifier
from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Asker

READ_EVERY_S = 10.0
"""How long a token may still count after its user was deactivated. For each reading session-api goes through the users:
30 ms of PostgreSQL for 100,000 of them."""


@asynccontextmanager
async def deactivated_users_refused(broker: Asker, tokens: TokenVerifier) -> AsyncIterator[None]:
    """Keep `tokens` told of the deactivated users while entered.

    While session-api does not answer, the list stays as it is. Otherwise its absence would stop all other services.
    """

    async def read() -> None:
        answer = await broker.request(Rpc.USER_DEACTIVATED, b"")
        tokens.refuse(UsersDeactivated.from_bytes(answer).users)

    async with running(Repeated("reading of deactivated users", read, READ_EVERY_S)):
        yield

"""Tokens of deactivated users: they would count until they expire, so each service reads who is deactivated."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tlim_protocol.events import UsersDeactivated
from tlim_protocol.subjects import Rpc

from tlim_runtime.auth import TokenVerifier
from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Asker

READ_EVERY_S = 10.0
"""How long a token may still count after its user was deactivated. For each reading session-api goes through the users:
30 ms of PostgreSQL for 100,000 of them."""

Reading = Callable[[], Awaitable[UsersDeactivated]]
"""Returns who is deactivated. Raises Unavailable if that cannot be read now."""


def asked_of_session_api(broker: Asker) -> Reading:
    """Return the reading of all services but session-api, which has the table."""

    async def ask() -> UsersDeactivated:
        return UsersDeactivated.from_bytes(await broker.request(Rpc.USER_DEACTIVATED, b""))

    return ask


@asynccontextmanager
async def deactivated_users_refused(reading: Reading, tokens: TokenVerifier) -> AsyncIterator[None]:
    """Keep `tokens` told of the deactivated users while entered.

    While they cannot be read, the list stays as it is. Otherwise the absence of session-api would stop all services.
    """

    async def read() -> None:
        tokens.refuse((await reading()).users)

    async with running(Repeated("reading of deactivated users", read, READ_EVERY_S)):
        yield

"""Tokens of deactivated users: they would count until they expire, so each service reads who is deactivated."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tlim_protocol.events import UsersDeactivated
from tlim_protocol.subjects import Rpc

from tlim_runtime.auth import TokenVerifier
from tlim_runtime.background import Repeated, running
from tlim_runtime.broker import Asker
from tlim_runtime.health import Health

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
async def deactivated_users_refused(reading: Reading, tokens: TokenVerifier, health: Health) -> AsyncIterator[None]:
    """Keep `tokens` told of the deactivated users while entered.

    While they cannot be read, the list stays as it is. Otherwise the absence of session-api would stop all services. A
    process that has never read them is new, and not ready: others have the list, and take its requests.
    """

    async def read() -> None:
        tokens.refuse((await reading()).users)

    async def ping() -> None:
        if not tokens.knows_whom_to_refuse:
            await read()

    health.add("deactivated users", ping)
    with suppress(Exception):  # the first round comes at once then, and says what is wrong
        await read()
    at_once = not tokens.knows_whom_to_refuse
    async with running(Repeated("reading of deactivated users", read, READ_EVERY_S, at_once=at_once)):
        yield

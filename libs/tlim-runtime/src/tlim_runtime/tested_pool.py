"""A pool of SQLAlchemy whose connections are tested before each use, also when the server's host has vanished.

After a restart of PostgreSQL the pool holds dead connections. SQLAlchemy's `pool_pre_ping` finds those that the server
has closed. When the host has vanished without a word and another answers under its name, `pool_pre_ping` waits for the
old host until TCP gives up: a quarter of an hour. Here a test has a deadline. After one that gets no answer, each
connection of that age is replaced when it is next taken out. A test that fails by a mistake costs its own connection.
"""

import asyncio
from typing import cast

from sqlalchemy import event
from sqlalchemy.engine.interfaces import AdaptedConnection
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from tlim_runtime.database_errors import is_unavailable
from tlim_runtime.logging import get_logger
from tlim_runtime.transactions import Connection

logger = get_logger(__name__)

ANSWER_S = 3.0
"""A test takes milliseconds. A machine that is too busy gets as long as for a new connection."""

_NEW = "tlim: just opened"


def tested_before_use(engine: AsyncEngine) -> None:
    """Test connections of the engine's pool when they are taken out; replace all of them when one does not answer."""
    event.listen(engine.sync_engine, "connect", _note_new)
    event.listen(engine.sync_engine, "checkout", _test)


def _note_new(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.info[_NEW] = True


def _test(connection: object, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    if entry.info.pop(_NEW, False):
        return
    try:
        cast("AdaptedConnection", connection).run_async(_ask)
    except Exception as error:
        if is_unavailable(error) or isinstance(error, OSError):  # the server is away, so the others are dead as well
            raise InvalidatePoolError from error
        # A mistake of ours. If it were not said, each use would open a new connection, and nobody would see why.
        logger.exception("the test of a pooled connection failed")
        raise DisconnectionError from error


async def _ask(connection: Connection) -> None:
    try:
        async with asyncio.timeout(ANSWER_S):
            await connection.execute("SELECT 1")  # asyncpg 0.32 fails on an empty query
    except BaseException:
        connection.terminate()  # closing it in order would wait for an answer as well
        raise

"""Transactions on a connection of asyncpg that goes on to be used. It loads without the libraries of a service."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Record: TypeAlias = asyncpg.Record

ROLLBACK_S = 10.0
"""A rollback takes milliseconds. When a statement was cancelled, asyncpg first waits for the server to say so, and a
server whose host has vanished never does."""


@asynccontextmanager
async def begun(
    connection: Connection, *, isolation: Literal["repeatable_read"] | None = None, readonly: bool = False
) -> AsyncIterator[None]:
    """Commit on success, roll back on any exception; end the connection if it is in doubt whether it is in here.

    PostgreSQL may carry out a BEGIN after we gave up waiting for its answer. Then asyncpg takes each later transaction
    for a part of that one: it seems to be committed, and is lost when the connection ends.
    """
    transaction = connection.transaction(isolation=isolation, readonly=readonly)
    try:
        await transaction.start()
    except BaseException:
        connection.terminate()
        raise
    try:
        yield
    except BaseException:
        # What fails on the way out must not take the place of a cancellation.
        with suppress(Exception), _ended_without_answer(connection):
            async with asyncio.timeout(ROLLBACK_S):
                await transaction.rollback()
        raise
    with _ended_without_answer(connection):
        await transaction.commit()


@contextmanager
def _ended_without_answer(connection: Connection) -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError:  # the answer: the transaction is over
        raise
    except BaseException:
        connection.terminate()
        raise

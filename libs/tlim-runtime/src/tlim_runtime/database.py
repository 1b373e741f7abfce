"""PostgreSQL: one engine per process, transactions that commit or roll back at the edge, failures with one name."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Literal, TypeVar, cast

import sqlalchemy.exc
from fastapi import Request
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.util import greenlet_spawn
from tlim_protocol.lenient import read_strict

from tlim_runtime.background import is_cancelled
from tlim_runtime.database_errors import DRIVER_ERRORS, is_unavailable
from tlim_runtime.outages import DatabaseUnavailable
from tlim_runtime.pulse import beat
from tlim_runtime.tested_pool import tested_before_use
from tlim_runtime.transactions import Connection, begun

T = TypeVar("T")

STATEMENT_TIMEOUT_MS = 10_000
"""A statement of a request or batch takes milliseconds. One that runs this long waits for a lost lock or has a bad
plan, and would keep a connection of the pool."""

QUESTIONS_POOL = 3
"""Connections of a service for questions from other services, and for readiness. All messages wait for these answers.
HTTP requests may be slow or many, so they have another pool."""

CONNECT_TIMEOUT_S = 3.0
"""On one network a connection takes milliseconds. After this time the caller hears that the database is away."""

CHECKOUT_S = 10.0
"""Waiting for a place in the pool, testing its connection and opening a new one have limits of 3 s each. The first
statements on a new connection have none that is so short."""

SILENCE_S = 5.0
"""The server ends a statement that takes too long. When it says nothing for so much longer, the connection is dead: its
host has vanished, and TCP alone would notice after a quarter of an hour."""

_DRIVER_ERRORS = (sqlalchemy.exc.SQLAlchemyError, *DRIVER_ERRORS, ConnectionError, TimeoutError)


class Database:
    """The connection pool of one database; give it the URL `postgresql+asyncpg://…`."""

    def __init__(self, url: str, pool_size: int = 10, *, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> None:
        self.engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            json_deserializer=read_strict,  # keeps numbers as they were written
            hide_parameters=True,  # errors go into the log, and parameters are people's messages
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": silent_after_s(statement_timeout_ms),
                "server_settings": {
                    "statement_timeout": str(statement_timeout_ms),
                    "idle_in_transaction_session_timeout": "60000",  # a stuck process must not keep row locks
                    "timezone": "UTC",
                    "jit": "off",  # compiling takes longer than any statement of ours
                },
            },
        )
        tested_before_use(self.engine)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._alone: set[str] = set()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Give a session in a transaction: committed on success, rolled back on any exception.

        Raises DatabaseUnavailable when the database is away, at any point up to and including the commit.
        """
        async with _translated(), self._connection() as connection, self._sessions(bind=connection) as session:
            # The session gets a connection that is open already. So a refused connection fails here, not in a rule.
            yield session
            await session.commit()

    @asynccontextmanager
    async def hot_transaction(
        self, *, isolation: Literal["repeatable_read"] | None = None
    ) -> AsyncIterator[Connection]:
        """Give the raw asyncpg connection inside BEGIN … COMMIT, for multi-row statements without ORM overhead.

        A session and its first statement take 0.9 ms of the processor, and this takes 0.25 ms. Raises
        DatabaseUnavailable like `session`.
        """
        async with _translated(), self._driver_connection() as connection, begun(connection, isolation=isolation):
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Give a hot transaction whose statements all see the database as it was at the first of them.

        Raises DatabaseUnavailable like `session`.
        """
        async with self.hot_transaction(isolation="repeatable_read") as connection:
            yield connection

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        connection = await _in_time(self.engine.connect())
        try:
            yield connection
        finally:
            await connection.close()
            beat()

    @asynccontextmanager
    async def _driver_connection(self) -> AsyncIterator[Connection]:
        pooled = await _in_time(self.engine.raw_connection())  # an AsyncConnection around it would cost 0.1 ms
        try:
            yield cast("Connection", pooled.driver_connection)  # SQLAlchemy knows it as Any | None
        finally:
            await greenlet_spawn(pooled.close)
            beat()

    @asynccontextmanager
    async def alone(self, work: str) -> AsyncIterator[bool]:
        """Give True to at most one block with this name among all processes. All others get False without waiting.

        The lock is held by a connection outside any transaction, so no time-out for idle transactions ends it. For each
        name that is one connection of this pool at most: blocks of this process are told False without any.
        """
        if work in self._alone:
            yield False
            return
        self._alone.add(work)
        try:
            async with self._locked(work) as is_ours:
                yield is_ours
        finally:
            self._alone.discard(work)

    @asynccontextmanager
    async def _locked(self, work: str) -> AsyncIterator[bool]:
        async with _translated(), self._connection() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            name = {"work": work}
            is_ours = bool(await connection.scalar(text("SELECT pg_try_advisory_lock(hashtext(:work))"), name))
            try:
                yield is_ours
            finally:
                if is_ours:
                    await connection.execute(text("SELECT pg_advisory_unlock(hashtext(:work))"), name)

    async def ping(self) -> None:
        """Ask the server for an answer; raises DatabaseUnavailable."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    async def size(self) -> int:
        """Return the size of the database in bytes; raises DatabaseUnavailable."""
        async with self.session() as session:
            return int(await session.scalar(text("SELECT pg_database_size(current_database())")) or 0)

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def silent_after_s(statement_timeout_ms: int) -> float:
    """Return after how many seconds a server with this `statement_timeout` is taken for dead: asyncpg's `timeout`."""
    return statement_timeout_ms / 1000 + SILENCE_S


async def _in_time(checkout: Awaitable[T]) -> T:
    """Return what the pool gives; raises DatabaseUnavailable after CHECKOUT_S, and when there is no server."""
    try:
        async with asyncio.timeout(CHECKOUT_S):
            return await checkout
    except (OSError, TimeoutError, sqlalchemy.exc.TimeoutError) as error:
        raise DatabaseUnavailable(_first_line(error)) from error
    finally:
        beat()


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except _DRIVER_ERRORS as error:
        if is_cancelled():  # what fails on the way out must not take the place of the cancellation
            raise asyncio.CancelledError from error
        if is_unavailable(error):
            raise DatabaseUnavailable(_first_line(error)) from error
        raise


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


async def connection_dependency(request: Request) -> AsyncIterator[Connection]:
    """Give a request its one transaction; use as `Depends(connection_dependency, scope="function")`.

    With that scope it commits before the answer leaves, so a client never hears 'ok' when nothing was stored. Needs
    `app.state.database`.
    """
    async with request.app.state.database.hot_transaction() as connection:
        yield connection

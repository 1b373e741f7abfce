"""A connection on which a transaction may still be open is not used any more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tlim_runtime import transactions
from tlim_runtime.driver_urls import driver_url
from tlim_runtime.transactions import Connection, begun


@pytest_asyncio.fixture
async def connection(make_empty_database: Callable[[str], str]) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(driver_url(make_empty_database("session_api")))
    await connection.execute("CREATE TABLE thing (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    yield connection
    await connection.close()


async def insert(connection: Connection, *, times: int = 1, then: type[Exception] | None = None) -> None:
    async with begun(connection):
        for _ in range(times):
            await connection.execute("INSERT INTO thing VALUES ('one')")
        if then is not None:
            raise then


@pytest.mark.parametrize("statement", ["BEGIN;", "COMMIT;", "ROLLBACK;"])
async def test_a_connection_whose_answer_comes_too_late_ends(
    connection: Connection, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = asyncpg.Connection.execute

    async def late(connection: Connection, query: str, *arguments: Any, **options: Any) -> str:
        answer = await execute(connection, query, *arguments, **options)
        if query == statement:
            raise TimeoutError
        return answer

    monkeypatch.setattr(asyncpg.Connection, "execute", late)
    then = LookupError if statement == "ROLLBACK;" else None
    with pytest.raises(then or TimeoutError):
        await insert(connection, then=then)
    assert connection.is_closed()


async def test_work_that_is_cancelled_ends_also_when_the_server_does_not_confirm_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = asyncio.Event()

    async def never_sent(**_options: Any) -> None:
        pass

    async def work() -> None:
        async with begun(connection):
            begins.set()
            await connection.execute("SELECT pg_sleep(60)")

    monkeypatch.setattr(asyncpg.connect_utils, "_cancel", never_sent)
    monkeypatch.setattr(transactions, "ROLLBACK_S", 0.5)
    task = asyncio.create_task(work())
    await begins.wait()
    task.cancel()
    await asyncio.wait([task], timeout=15)
    assert task.cancelled()
    assert connection.is_closed()


async def test_a_connection_goes_on_after_postgresql_has_refused_to_commit(connection: Connection) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(connection, times=2)
    await insert(connection)
    assert await connection.fetchval("SELECT count(*) FROM thing") == 1

"""The index of search begun anew while message-store writes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest_asyncio
from tenacity import AsyncRetrying, retry_if_exception_type, wait_fixed
from tlim_admin.upkeep.log import empty_index
from tlim_runtime.background import beside

WAITING = """
    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE datname = current_database() AND NOT granted"""


@pytest_asyncio.fixture
async def connections(
    make_database: Callable[[str], str], owner_url: Callable[[str, str], str]
) -> AsyncIterator[list[Any]]:
    """Two connections of the tables' owner."""
    url = owner_url("message_store", make_database("message_store")).replace("+asyncpg", "")
    async with AsyncExitStack() as stack:
        opened: list[Any] = []
        for _ in range(2):
            opened.append(await asyncpg.connect(url))
            stack.push_async_callback(opened[-1].close)
        yield opened


async def test_whoever_empties_the_index_does_not_stop_a_store_that_notes_what_is_published(
    connections: list[Any],
) -> None:
    operator, store = connections

    async def waits() -> None:
        assert await store.fetchval(WAITING) == 1

    async with asyncio.timeout(30), AsyncExitStack() as stack:
        async with store.transaction():
            await store.execute("DELETE FROM search_documents")  # as a recall does
            emptying = await stack.enter_async_context(beside(empty_index(operator)))
            async for attempt in AsyncRetrying(wait=wait_fixed(0.05), retry=retry_if_exception_type(AssertionError)):
                with attempt:
                    await waits()
            await store.execute("UPDATE publication SET published_seq = 1")
        await emptying
    assert await store.fetchrow("SELECT published_seq, indexed_seq FROM publication") == (1, 0)

"""A store adds partitions before they are needed, and waits for nobody."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest_asyncio
from message_store.partition_repository import Partitions
from message_store.upkeep import PartitionKeeper
from tlim_admin.retention.log_tables import Log
from tlim_runtime.database import Database

SPAN = 100


@dataclass
class Shop:
    """A store with partitions of 100 seqs."""

    owner: Any  # a connection of the tables' owner
    url: str  # of the service

    async def partitions(self) -> list[tuple[int, int]]:
        return [(one.first, one.bound) for one in await Log(self.owner).partitions()]

    async def draw(self, seq: int) -> None:
        """Give out all seqs up to this one."""
        await self.owner.execute("SELECT setval('message_seq', $1::bigint)", seq)


@pytest_asyncio.fixture
async def shop(make_database: Callable[[str], str], owner_url: Callable[[str, str], str]) -> AsyncIterator[Shop]:
    url = make_database("message_store")
    owner = await asyncpg.connect(owner_url("message_store", url).replace("+asyncpg", ""))
    for partition in await Log(owner).partitions():
        await owner.execute(f"DROP TABLE {partition.name}")
    await owner.execute("SELECT add_message_partitions($1, 450)", SPAN)
    yield Shop(owner, url)
    await owner.close()


async def test_the_keeper_adds_partitions_before_they_are_needed(shop: Shop) -> None:
    database = Database(shop.url)
    keeper = PartitionKeeper(Partitions(database), SPAN)
    await shop.draw(440)
    await keeper.ensure()
    assert (await shop.partitions())[-1] == (401, 501)
    await shop.draw(451)
    await keeper.ensure()
    assert (await shop.partitions())[-1] == (501, 601)
    await shop.draw(5000)
    await keeper.ensure()
    assert (await shop.partitions())[-1] == (5001, 5101)
    await database.close()


async def test_partitions_can_be_added_amid_open_transactions(shop: Shop) -> None:
    database = Database(shop.url)
    reader = await asyncpg.connect(shop.url.replace("+asyncpg", ""))
    async with reader.transaction():
        await reader.fetch("SELECT * FROM messages")
        await reader.execute("DELETE FROM messages")
        assert await Partitions(database).add(SPAN, 700) == 701
    await reader.close()
    await database.close()

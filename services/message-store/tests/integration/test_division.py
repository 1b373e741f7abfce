"""How stores divide the parts among them, by locks in PostgreSQL: with a store that does nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import asyncpg
from message_store.leadership import Leadership, StoreWork
from message_store.shares import PARTS, UPKEEP
from tlim_runtime.background import Background, running
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from tlim_runtime.transactions import Connection

OF_THE_RELEASE_BEFORE = 0x746C_696D_0001
"""The lock that its leader has alone."""

ALL = list(PARTS)


class Idle:
    """A store that does nothing; `fails` is a part that cannot be begun."""

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.fails: int | None = None

    @asynccontextmanager
    async def serve(self, _: Connection) -> AsyncIterator[StoreWork]:
        try:
            yield self
        finally:
            self.begun.clear()

    def turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def begin(self, part: int) -> None:
        if part == self.fails:
            raise BrokerUnavailable("not now")
        self.begun.add(part)

    async def end(self, group: int) -> None:
        self.begun.remove(group)


async def test_a_store_that_can_do_nothing_leaves_its_share_to_others_until_it_can(world: Any, eventually: Any) -> None:
    is_able = True
    stores = [Idle(), Idle()]
    elections = [
        Leadership(world.database_url, store.serve, 0.02, lambda _: None, able)
        for store, able in zip(stores, (lambda: is_able, lambda: True), strict=True)
    ]

    async def have(sizes: Sequence[int]) -> None:
        assert [len(store.begun - {UPKEEP}) for store in stores] == sizes
        assert sorted(part for store in stores for part in store.begun) == ALL

    async with AsyncExitStack() as stack:
        for election in elections:
            await stack.enter_async_context(running(Background("leadership", election.run)))
        await eventually(lambda: have([4, 4]))
        is_able = False
        await eventually(lambda: have([0, 8]))
        is_able = True
        await eventually(lambda: have([4, 4]))


async def test_other_locks_in_the_database_are_no_parts(world: Any, eventually: Any) -> None:
    other = await asyncpg.connect(world.database_url.replace("+asyncpg", ""))
    for lock in (7, OF_THE_RELEASE_BEFORE + 1, OF_THE_RELEASE_BEFORE + 0x1000):
        await other.execute("SELECT pg_advisory_lock($1)", lock)
    await other.execute("SELECT pg_advisory_lock($1, $2)", 0x746C, 0x696D_0100)  # as group 0, in two numbers
    store = Idle()
    election = Leadership(world.database_url, store.serve, 0.02, lambda _: None)

    async def has_all() -> None:
        assert sorted(store.begun) == ALL

    async with running(Background("leadership", election.run)):
        await eventually(has_all)
    await other.close()


async def test_a_part_that_cannot_be_begun_is_tried_again(world: Any, eventually: Any) -> None:
    store = Idle()
    store.fails = 3
    election = Leadership(world.database_url, store.serve, 0.02, lambda _: None)

    async def has(parts: Sequence[int]) -> None:
        assert list(election.parts) == parts
        assert sorted(store.begun) == parts

    async def says(*reasons: str) -> None:
        told = []
        try:
            await election.ping()
        except Unavailable as error:
            told.append(str(error))
        assert told == [*reasons]

    async with running(Background("leadership", election.run)):
        await eventually(lambda: has([part for part in ALL if part != 3]))
        await eventually(lambda: says("group 3 cannot be begun: not now"))
        store.fails = None
        await eventually(lambda: has(ALL))
        await eventually(says)


async def test_a_store_compiles_no_statement_as_the_pool_compiles_none(world: Any) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()

    @asynccontextmanager
    async def serve(connection: Connection) -> AsyncIterator[StoreWork]:
        told.put_nowait(await connection.fetchval("SHOW jit"))
        yield Idle()

    election = Background("leadership", Leadership(world.database_url, serve, 0.05, lambda _: None).run)
    async with running(election):
        assert await told.get() == "off"

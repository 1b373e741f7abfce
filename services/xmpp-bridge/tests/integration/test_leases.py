"""Leases in a real JetStream: bridges share the shards, and no two have one, whatever becomes of NATS."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import count

import nats as nats_client
import pytest_asyncio
from tlim_devstack import nats
from tlim_devstack.restartable import RestartableNats
from tlim_devstack.severable import Severable
from tlim_protocol.identity import DELIVERY_SHARDS
from tlim_runtime.broker import Broker
from tlim_runtime.outages import Unavailable
from tlim_runtime.provision import provision
from xmpp_bridge.leases import Leases
from xmpp_bridge.shares import SILENT_S, Held

Eventually = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
USER = "xmpp-bridge"


class Owner:
    """Has the shards of one bridge, and gives them up at once."""

    def __init__(self, name: str, broker: Broker) -> None:
        self.leases = Leases(broker, name, self)
        self.owned: dict[int, Held] = {}

    def taken(self, held: Held) -> None:
        self.owned[held.shard] = held

    def lost(self, held: Held) -> None:
        self.owned.pop(held.shard, None)

    def give_up(self, held: Held) -> None:
        del self.owned[held.shard]
        self.leases.release(held)

    @property
    def valid(self) -> list[int]:
        return [shard for shard, held in self.owned.items() if held.is_valid]


class World:
    """A NATS server, and bridges that come to it."""

    def __init__(self, server: RestartableNats, stack: AsyncExitStack, eventually: Eventually) -> None:
        self.nats = server
        self._stack = stack
        self._eventually = eventually
        self._numbers = count(1)

    async def bridge(self, url: str | None = None) -> Owner:
        broker = await Broker.connect(url or self.nats.url, USER, self.nats.passwords[USER], "test")
        self._stack.push_async_callback(broker.close)
        owner = Owner(f"bridge{next(self._numbers)}", broker)
        await owner.leases.start()
        self._stack.push_async_callback(owner.leases.stop)
        owner.leases.join()
        return owner

    async def divided(self, *owners: Owner) -> None:
        """Wait until these bridges, and no others, have all shards in fair shares."""

        async def so() -> None:
            assert sorted(shard for owner in owners for shard in owner.valid) == list(range(DELIVERY_SHARDS))
            counts = [len(owner.valid) for owner in owners]
            assert max(counts) - min(counts) <= 1

        await self._eventually(so)


@pytest_asyncio.fixture
async def world(restartable_nats: RestartableNats, eventually: Eventually) -> AsyncIterator[World]:
    connection = await nats_client.connect(
        restartable_nats.url, user=nats.TEST_USER, password=restartable_nats.passwords[nats.TEST_USER]
    )
    await provision(connection)
    await connection.close()
    async with AsyncExitStack() as stack:
        yield World(restartable_nats, stack, eventually)


async def test_bridges_share_the_shards_and_one_that_leaves_gives_its_own_to_the_others(world: World) -> None:
    one = await world.bridge()
    await world.divided(one)
    other, third = await world.bridge(), await world.bridge()
    await world.divided(one, other, third)
    await other.leases.stop()
    assert other.valid == []
    await world.divided(one, third)


async def test_a_restart_of_nats_takes_no_shard_from_anybody(world: World, eventually: Eventually) -> None:
    one, other = await world.bridge(), await world.bridge()
    await world.divided(one, other)
    leases = [*one.owned.values(), *other.owned.values()]

    async def are_renewed(before: list[int]) -> None:
        """Hold when each lease was renewed since then, or is over."""
        assert all(held.is_over or held.seq > seq for held, seq in zip(leases, before, strict=True))

    begun = time.monotonic()
    await eventually(partial(are_renewed, [held.seq for held in leases]))
    await asyncio.to_thread(world.nats.kill)  # both bridges go on meanwhile
    before = [held.seq for held in leases]
    await asyncio.to_thread(world.nats.start)
    await eventually(partial(are_renewed, before))
    if time.monotonic() - begun < SILENT_S:  # a busy machine may take longer, and then shards are free
        assert not any(held.is_over for held in leases)
    await world.divided(one, other)


async def test_a_bridge_without_nats_holds_nothing_and_the_others_take_over(world: World) -> None:
    async with Severable(world.nats.url) as link:
        severed, other = await world.bridge(link.url), await world.bridge()
        await world.divided(severed, other)
        held = list(severed.owned.values())
        await link.cut()
        await world.divided(other)
        assert not any(one.is_valid for one in held)
        await link.mend()
        await world.divided(severed, other)
        assert not any(one.is_valid for one in held)


async def test_a_bridge_that_cannot_renew_says_so(world: World, eventually: Eventually) -> None:
    only = await world.bridge()
    await world.divided(only)
    await eventually(only.leases.ping)
    world.nats.freeze()

    async def says_so() -> None:
        reason = ""
        try:
            await only.leases.ping()
        except Unavailable as error:
            reason = str(error)
        assert "lease" in reason

    await eventually(says_so)
    world.nats.thaw()
    await eventually(only.leases.ping)

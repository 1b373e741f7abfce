import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

from tlim_runtime.metrics import Metrics
from xmpp_bridge.attendance import Attendance
from xmpp_bridge.shards import FINISHED_S, IN_HAND_S, Shard, ShardParts, Shards
from xmpp_bridge.shares import Held

Run = Callable[[Coroutine[Any, Any, None]], None]


async def test_a_connection_lost_twice_while_a_shard_closes_still_goes_back_to_the_first_place() -> None:
    made: list[Any] = []

    def make(_held: Held, _lost: object) -> ShardParts:
        mailroom, outbox, consumer = MagicMock(), MagicMock(), MagicMock()
        mailroom.settled, mailroom.stop = AsyncMock(), AsyncMock()
        consumer.start, consumer.abort, outbox.close = AsyncMock(), AsyncMock(), AsyncMock()
        outbox.connection_lost.side_effect = [7, None]  # the second time there is nothing more to take back
        consumer.going_back = None
        made.append(consumer)
        return ShardParts(MagicMock(), mailroom, outbox, consumer)

    shards = Shards(MagicMock(), "me", make, Attendance(), Metrics())
    shards.went_up()
    shards.taken(shards._leases._book.take(0, 1, time.monotonic()))
    shards.went_down()
    shards.went_up()
    shards.went_down()
    shards.went_up()
    await asyncio.gather(*shards._closing.values())
    shards.taken(shards._leases._book.take(0, 2, time.monotonic()))

    made[-1].go_back.assert_called_once_with(7)


async def test_a_shard_counts_as_had_when_it_is_known_who_is_present() -> None:
    mailroom, metrics = MagicMock(is_settled=False), Metrics()
    mailroom.settled, mailroom.stop = never, AsyncMock()
    consumer = MagicMock(going_back=None, abort=AsyncMock())
    outbox = MagicMock(close=AsyncMock(), connection_lost=MagicMock(return_value=None))
    parts = ShardParts(MagicMock(), mailroom, outbox, consumer)
    shards = Shards(MagicMock(), "me", lambda _held, _lost: parts, Attendance(), metrics)
    shards.went_up()
    shards.taken(shards._leases._book.take(0, 1, time.monotonic()))
    assert metrics.registry.get_sample_value("tlim_bridge_shards", {"shard": "0"}) == 0
    mailroom.is_settled = True
    assert metrics.registry.get_sample_value("tlim_bridge_shards", {"shard": "0"}) == 1
    shards.went_down()
    await asyncio.gather(*shards._closing.values())


async def test_a_connection_lost_before_a_shard_has_opened_still_goes_back_to_the_first_place() -> None:
    consumers: list[Any] = []

    def make(_held: Held, _lost: object) -> ShardParts:
        mailroom, outbox, consumer = MagicMock(), MagicMock(), MagicMock()
        mailroom.settled, mailroom.stop = asyncio.Event().wait, AsyncMock()
        consumer.abort, outbox.close = AsyncMock(), AsyncMock()
        outbox.connection_lost.return_value = None if consumers else 7  # the second one delivers nothing
        consumer.going_back = None
        consumer.go_back = lambda first: setattr(consumer, "going_back", first)
        consumers.append(consumer)
        return ShardParts(MagicMock(), mailroom, outbox, consumer)

    shards = Shards(MagicMock(), "me", make, Attendance(), Metrics())
    for seq in (1, 2, 3):
        shards.went_up()
        shards.taken(shards._leases._book.take(0, seq, time.monotonic()))
        shards.went_down()
        await asyncio.gather(*shards._closing.values())
    assert [consumer.going_back for consumer in consumers] == [None, 7, 7]


class Times:
    """When the consumer of a shard that is given up was told to stop, and until when it was waited for."""

    def __init__(self) -> None:
        self.stopped: list[float] = []

    async def stop(self) -> None:
        self.stopped.append(asyncio.get_running_loop().time())
        try:
            await never()
        finally:
            self.stopped.append(asyncio.get_running_loop().time())


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    pass


def shard_with(
    stop: Callable[[], Awaitable[None]],
    emptied: Callable[[], Awaitable[None]],
    caught_up: Callable[[], Awaitable[None]],
) -> Shard:
    mailroom, outbox, consumer = MagicMock(), MagicMock(), MagicMock()
    mailroom.finish_catch_ups, mailroom.stop = caught_up, AsyncMock()
    outbox.emptied, outbox.close = emptied, AsyncMock()
    consumer.stop, consumer.abort = stop, AsyncMock()
    return Shard(MagicMock(), ShardParts(MagicMock(), mailroom, outbox, consumer))


def test_a_shard_that_is_given_up_delivers_until_its_slow_lane_is_empty_and_is_then_left_quickly(jumping: Run) -> None:
    async def story() -> None:
        for caught_up in (at_once, never):
            begun, times = asyncio.get_running_loop().time(), Times()
            shard = shard_with(times.stop, never, caught_up)
            await shard.finish()
            assert [round(at - begun, 6) for at in times.stopped] == [FINISHED_S, FINISHED_S + IN_HAND_S]
            assert [call[0] for call in cast("MagicMock", shard.outbox).method_calls] == ["end", "close"]

    jumping(story())


def test_what_came_into_the_lane_meanwhile_has_the_rest_of_the_time_and_what_is_begun_a_little_more(
    jumping: Run,
) -> None:
    async def story() -> None:
        begun, times = asyncio.get_running_loop().time(), Times()
        shard = shard_with(times.stop, at_once, at_once)
        await shard.finish()
        stops = [round(at - begun, 6) for at in times.stopped]
        assert stops == [0, FINISHED_S, FINISHED_S, FINISHED_S + IN_HAND_S]
        assert [call[0] for call in cast("MagicMock", shard.outbox).method_calls] == ["end", "close"]

    jumping(story())


def test_a_shard_with_an_empty_slow_lane_is_left_at_once(jumping: Run) -> None:
    async def story() -> None:
        begun = asyncio.get_running_loop().time()
        shard = shard_with(at_once, at_once, at_once)
        await shard.finish()
        assert asyncio.get_running_loop().time() == begun
        assert [call[0] for call in cast("MagicMock", shard.outbox).method_calls] == ["close"]

    jumping(story())

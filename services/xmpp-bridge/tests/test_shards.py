import asyncio
import time
from typing import Any
from unittest.mock import AsyncMock, MagicMock

from tlim_runtime.metrics import Metrics
from xmpp_bridge.attendance import Attendance
from xmpp_bridge.shards import ShardParts, Shards
from xmpp_bridge.shares import Held


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

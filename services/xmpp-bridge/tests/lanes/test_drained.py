"""A shard is given up when its slow lane is empty, and until then it delivers."""

import asyncio
from typing import Any

from tlim_runtime.consumer import DONE
from tlim_runtime.outages import Unavailable
from xmpp_bridge.lanes import MANY, MOST_WAITING


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_lane_is_empty_when_everything_in_it_is_sent_and_others_are_delivered_meanwhile(bridge: Any) -> None:
    await bridge.outbox.drained()
    bridge.server.permits.release()  # for what goes at once
    (later,) = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    drained = asyncio.ensure_future(bridge.outbox.drained())
    small = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(2, "small"))))
    for _ in range(2):  # a portion, and the other conversation
        bridge.server.permits.release()
        await settled()
    assert await small == [DONE]
    assert not drained.done()
    bridge.server.open()
    await drained
    assert await later.verdict == DONE


async def test_the_portion_in_hand_is_the_last_when_the_lane_is_given_up_and_what_waits_behind_it_is_not_begun(
    bridge: Any,
) -> None:
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(
        bridge.batch(*(bridge.message(1 + n, "busy", is_answered=False) for n in range(2 * MANY)))
    )
    await settled()
    bridge.outbox.end()
    bridge.server.open()
    await bridge.outbox.drained()
    ends = [one.verdict.exception() or one.verdict.result() for one in verdicts]
    sent = ends.count(DONE)
    assert 0 < sent < MANY
    assert ends[:sent] == [DONE] * sent
    assert all(isinstance(end, Unavailable) for end in ends[sent:])
    assert {what for what, _ in bridge.server.taken} <= {f"m{1 + n}" for n in range(sent + 1)}


async def test_the_lane_is_empty_when_the_connection_is_lost(bridge: Any) -> None:
    bridge.server.permits.release()
    await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    drained = asyncio.ensure_future(bridge.outbox.drained())
    await settled()
    assert not drained.done()
    bridge.outbox.connection_lost()
    await drained
    await bridge.outbox.close()


async def test_a_batch_that_waits_for_room_goes_on_while_the_end_of_the_lane_is_waited_for(bridge: Any) -> None:
    bridge.server.permits.release()
    await bridge.outbox.handle(bridge.batch(*(bridge.message(1 + n, "busy") for n in range(MOST_WAITING))))
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(MOST_WAITING + 1, "small"))))
    drained = asyncio.ensure_future(bridge.outbox.drained())
    await settled()
    assert not waiting.done()
    for _ in range(3):  # two portions, and the batch
        bridge.server.permits.release()
        await settled()
    assert await waiting == [DONE]
    assert not drained.done()
    bridge.server.open()
    await drained

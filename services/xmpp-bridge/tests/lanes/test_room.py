"""The slow lane has room for so many messages, and for so much memory. When it is full, the next batch waits."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from tlim_protocol.events import StoredMessage
from tlim_runtime.consumer import DONE, Later, Verdict
from tlim_runtime.pulse import Pulse
from xmpp_bridge.lanes import FEW, MOST_BYTES, MOST_WAITING

Verdicts = Sequence[Verdict | Later]


async def still_waits(bridge: Any, waiting: asyncio.Future[Verdicts], portions: int) -> None:
    """Let so many portions go out; the batch must wait all the same."""
    for _ in range(portions):
        bridge.server.permits.release()
    for _ in range(100):
        await asyncio.sleep(0)
    assert not bridge.server.permits._value, "the portions are sent"
    assert not waiting.done()


async def handled(bridge: Any, event: StoredMessage) -> Verdicts:
    bridge.server.permits.release()  # for the answer to its sender
    verdicts: Verdicts = await bridge.outbox.handle(bridge.batch(event))
    return verdicts


async def test_the_slow_lane_is_full_by_what_its_messages_take_in_memory(bridge: Any) -> None:
    lists = [bridge.message(seq, "s", FEW + 1, lists=[[]] * 4_900) for seq in range(1, 101)]
    bridge.server.permits.release()  # for the answers to their sender
    verdicts = await bridge.outbox.handle(bridge.batch(*lists))
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(9_999, "small"))))
    await still_waits(bridge, waiting, portions=2)
    bridge.server.open()
    assert await waiting == [DONE]
    await bridge.ended(verdicts)


async def test_a_batch_that_is_larger_than_what_is_left_of_the_slow_lane_waits(bridge: Any) -> None:
    half = "x" * (MOST_BYTES // 6)  # as it came, as it is read, and as it is written: a bit more than half
    verdicts = await handled(bridge, bridge.message(1, "s", FEW + 1, text=half))
    waiting = asyncio.ensure_future(handled(bridge, bridge.message(2, "t", FEW + 1, text=half)))
    await still_waits(bridge, waiting, portions=3)
    bridge.server.open()
    await bridge.ended([*verdicts, *await waiting])


@pytest.mark.parametrize("text", ["x" * 300, "今" * 50], ids=["english", "chinese"])
async def test_what_one_person_writes_in_a_minute_does_not_fill_the_slow_lane(bridge: Any, text: str) -> None:
    texts = [bridge.message(seq, "s", FEW + 1, text=text) for seq in range(1, MOST_WAITING)]
    taken = sum(one.weight for one in bridge.batch(*texts))
    assert taken < MOST_BYTES


async def test_with_too_much_in_the_slow_lane_the_rest_waits(bridge: Any) -> None:
    pulse = Pulse()
    pulse.begin()
    pulse.beat()
    bridge.server.permits.release()
    large = [bridge.message(seq, f"s{seq}", FEW + 1) for seq in range(1, MOST_WAITING + 1)]
    verdicts = await bridge.outbox.handle(bridge.batch(*large))
    bridge.server.permits.release()
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(9_999, "small"))))
    bridge.server.permits.release()
    await asyncio.sleep(0)
    assert not waiting.done()
    assert pulse.stands_for() == 0, "it waits for others, and does not hang"
    bridge.server.open()
    assert await waiting == [DONE]
    await bridge.ended(verdicts)

"""A shard is given up when what waited in its slow lane is sent, and until then it delivers."""

import asyncio
from typing import Any

import pytest
from tlim_runtime.consumer import DONE
from xmpp_bridge.lanes import FEW, LITTLE, MANY, MOST_WAITING


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def fill(bridge: Any) -> None:
    bridge.server.permits.release()  # for the answers
    await bridge.outbox.handle(bridge.batch(*(bridge.message(1 + n, "busy") for n in range(MOST_WAITING))))


async def test_the_lane_is_empty_when_everything_in_it_is_sent_and_others_are_delivered_meanwhile(bridge: Any) -> None:
    await bridge.outbox.emptied()
    bridge.server.permits.release()  # for what goes at once
    (later,) = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    emptied = asyncio.ensure_future(bridge.outbox.emptied())
    small = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(2, "small"))))
    for _ in range(2):  # a portion, and the other conversation
        bridge.server.permits.release()
        await settled()
    assert await small == [DONE]
    assert not emptied.done()
    bridge.server.open()
    await emptied
    assert await later.verdict == DONE


async def test_what_comes_meanwhile_is_not_waited_for_and_it_is_little(bridge: Any) -> None:
    for _ in range(12):  # four portions of the old message, and as many of the next
        bridge.server.permits.release()
    (old,) = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    emptied = asyncio.ensure_future(bridge.outbox.emptied())
    await settled()
    (late,) = await bridge.outbox.handle(bridge.batch(bridge.message(2, "late", LITTLE)))
    too_late = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(3, "too late"))))
    await emptied
    assert old.verdict.result() == DONE
    assert not late.verdict.done()
    await settled()
    assert not too_late.done()
    bridge.server.open()
    assert await too_late == [DONE]
    assert await late.verdict == DONE


@pytest.mark.parametrize("is_copied", [False, True], ids=["one stanza each", "two stanzas each"])
async def test_when_the_lane_is_given_up_nothing_is_begun_any_more_and_what_is_sent_does_not_come_again(
    bridge: Any, *, is_copied: bool
) -> None:
    people = 2 if is_copied else 1
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(
        bridge.batch(*(bridge.message(1 + n, "busy", people, is_answered=False) for n in range(2 * MANY)))
    )
    await settled()
    bridge.outbox.end()
    bridge.server.open()
    await settled()
    futures = [one.verdict for one in verdicts]
    assert all(one.done() for one in futures)
    sent = {f"m{1 + n}" for n, one in enumerate(futures) if not one.cancelled() and one.result() == DONE}
    assert 0 < len(sent) <= MANY
    assert {what for what, _ in bridge.server.taken} == sent
    assert len(bridge.server.taken) == len(sent) * (people + 1)
    assert bridge.presence.up_to == len(sent)  # no mailbox moves past what is left


async def test_a_batch_that_waits_for_room_is_left_to_the_next_bridge_when_the_lane_is_given_up(bridge: Any) -> None:
    await fill(bridge)
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(MOST_WAITING + 1, "busy"))))
    await settled()
    assert not waiting.done()
    bridge.outbox.end()
    bridge.server.open()
    (verdict,) = await waiting
    assert verdict.verdict.cancelled()


async def test_nothing_overtakes_a_message_of_its_conversation_that_is_left_to_the_next_bridge(bridge: Any) -> None:
    await fill(bridge)
    many = [bridge.message(4001 + n, f"c{n}", sender="bob") for n in range(FEW + 1)]
    answer = bridge.message(4100, "c0", sender="carol")
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(*many, answer)))
    await settled()
    assert not waiting.done()
    bridge.outbox.end()
    bridge.server.open()
    assert all(one.verdict.cancelled() for one in await waiting)
    assert not {"m4001", "m4100"} & {what for what, _ in bridge.server.taken}


async def test_what_was_about_to_begin_when_the_lane_was_given_up_is_not_sent(bridge: Any) -> None:
    bridge.recalls.answers.clear()
    bridge.server.open()
    late = bridge.batch(*(bridge.message(1 + n, "busy") for n in range(MANY)), received_at=0)
    handling = asyncio.ensure_future(bridge.outbox.handle(late))
    await bridge.recalls.asked.wait()
    bridge.recalls.answers.set()
    bridge.recalls.asked.clear()
    bridge.recalls.answers.clear()
    verdicts = await handling
    await bridge.recalls.asked.wait()  # the first portion
    bridge.outbox.end()
    bridge.recalls.answers.set()
    await settled()
    assert all(one.verdict.cancelled() for one in verdicts)
    assert not any(what.startswith("m") for what, _ in bridge.server.taken)


async def test_the_lane_is_empty_when_the_connection_is_lost(bridge: Any) -> None:
    bridge.server.permits.release()
    await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    emptied = asyncio.ensure_future(bridge.outbox.emptied())
    await settled()
    assert not emptied.done()
    bridge.outbox.connection_lost()
    await emptied
    await bridge.outbox.close()


async def test_a_batch_that_waits_for_room_goes_on_while_the_end_of_the_lane_is_waited_for(bridge: Any) -> None:
    await fill(bridge)
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(MOST_WAITING + 1, "small"))))
    emptied = asyncio.ensure_future(bridge.outbox.emptied())
    await settled()
    assert not waiting.done()
    for _ in range(3):  # two portions, and the batch
        bridge.server.permits.release()
        await settled()
    assert await waiting == [DONE]
    assert not emptied.done()
    bridge.server.open()
    await emptied

"""What goes to many people goes in portions, and nobody waits for it but its own conversation."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from tlim_protocol.registry import MsgType
from tlim_runtime.consumer import DONE, Incoming, Later, Verdict
from tlim_runtime.outages import Unavailable
from xmpp_bridge import lanes
from xmpp_bridge.component import ComponentLost
from xmpp_bridge.lanes import FEW, MANY, PORTIONS_AT_ONCE, Queues, Work, next_in_turn

NOW = 2**47  # in the year 6429: no message is late
Verdicts = Sequence[Verdict | Later]


async def test_a_message_to_many_people_goes_in_portions_and_all_of_them_get_it_once(bridge: Any) -> None:
    bridge.server.open()
    verdicts = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY - 5)))
    assert await bridge.ended(verdicts) == [DONE]
    receivers = [to for what, to in bridge.server.taken if what == "m1" and to != "alice"]
    assert sorted(receivers) == sorted(f"user{number}" for number in range(3 * MANY - 5))
    assert max(bridge.server.sizes) <= MANY


async def test_its_sender_is_answered_at_once_and_other_conversations_overtake_it(bridge: Any) -> None:
    bridge.server.permits.release()
    first = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 5 * MANY)))
    assert bridge.server.taken == [("stored m1", "alice")]
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(2, "small"))))
    bridge.server.permits.release()  # for a portion that had its turn already
    bridge.server.permits.release()
    assert await waiting == [DONE]
    assert ("m2", "user0") in bridge.server.taken
    assert [to for what, to in bridge.server.taken if what == "m1"].count(f"user{4 * MANY}") == 0
    bridge.server.open()
    assert await bridge.ended(first) == [DONE]


async def test_a_decision_of_the_store_is_handed_on_with_its_trace(bridge: Any) -> None:
    bridge.server.open()
    (incoming,) = bridge.batch(bridge.message(1, "small"))
    traceparent = f"00-{'4b' * 16}-{'0a' * 8}-01"
    await bridge.outbox.handle([replace(incoming, traceparent=traceparent)])
    assert bridge.heard == [(bridge.message(1, "small"), traceparent)]


async def test_a_mistake_in_a_portion_is_logged_with_the_message_and_its_trace(bridge: Any) -> None:
    bridge.server.open()
    bridge.server.is_mistaken = True
    (incoming,) = bridge.batch(bridge.message(1, "large", 3 * MANY))
    traced = replace(incoming, traceparent=f"00-{'4b' * 16}-{'0a' * 8}-01")
    with capture_logs() as lines:
        verdicts = await bridge.outbox.handle([traced])
        with pytest.raises(Unavailable):
            await bridge.ended(verdicts)
    (line,) = (line for line in lines if line["event"] == "the slow lane failed")
    assert (line["msg_id"], line["trace_id"]) == ("m1", "4b" * 16)


async def test_the_next_messages_of_its_conversation_queue_behind_it(bridge: Any) -> None:
    bridge.server.open()
    verdicts = await bridge.outbox.handle(
        bridge.batch(bridge.message(1, "large", 3 * MANY), bridge.message(2, "large"))
    )
    verdicts = [
        *verdicts,
        *await bridge.outbox.handle(bridge.batch(bridge.message(3, "large"), bridge.message(4, "small"))),
    ]
    assert await bridge.ended(verdicts) == [DONE] * 4
    mine = [what for what, to in bridge.server.taken if to == "user0"]
    assert [what for what in mine if what != "m4"] == ["m1", "m2", "m3"]
    copies = [what for what, to in bridge.server.taken if to == "alice" and not what.startswith("stored")]
    assert [what for what in copies if what != "m4"] == ["m1", "m2", "m3"]


async def test_a_notice_of_a_session_is_one_of_its_messages_and_comes_in_order(bridge: Any) -> None:
    renamed = bridge.message(1, "large", 3 * MANY)
    body = [{"session_id": "large", "session_name": "new", "added": [], "removed": []}]
    notice = renamed.envelope.model_copy(update={"msg_type": MsgType.SESSION_CHANGED, "body": body})
    batch = bridge.batch(renamed.model_copy(update={"envelope": notice}), bridge.message(2, "large", sender="bob"))
    bridge.server.open()
    verdicts = await bridge.outbox.handle(batch)
    assert await bridge.ended(verdicts) == [DONE] * 2
    assert [what for what, to in bridge.server.taken if to == "user0"] == ["m1", "m2"]


async def test_many_messages_of_one_conversation_go_in_portions_and_others_overtake_them(bridge: Any) -> None:
    flood = [bridge.message(seq, "busy", FEW) for seq in range(1, 21)]
    bridge.server.open()
    verdicts = await bridge.outbox.handle(bridge.batch(*flood, bridge.message(21, "small", sender="bob")))
    assert [what for what, _ in bridge.server.taken if not what.startswith("stored")] == ["m21", "m21"]
    assert await bridge.ended(verdicts) == [DONE] * 21
    mine = [what for what, to in bridge.server.taken if to == "user0" and what != "m21"]
    assert mine == [one.envelope.msg_id for one in flood]
    assert MANY / 2 < bridge.server.sizes[1] <= MANY, "several messages of a conversation are one portion"


async def test_small_messages_that_wait_share_a_portion(bridge: Any) -> None:
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(bridge.batch(*(bridge.message(seq, f"s{seq % 3}", 7) for seq in range(1, 7))))
    bridge.server.open()
    assert await bridge.ended(verdicts) == [DONE] * 6
    assert bridge.server.sizes[1:] == [48], "six messages: seven deliveries each, and the copy for the sender's devices"


async def test_whoever_found_no_room_in_a_portion_is_next(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "PORTION_BYTES", 1)  # each stanza is too much for another one beside it
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(bridge.batch(*(bridge.message(seq, f"s{seq % 2}", 7) for seq in range(1, 5))))
    bridge.server.open()
    assert await bridge.ended(verdicts) == [DONE] * 4
    turns = [what for what, _ in bridge.server.taken if not what.startswith("stored")]
    assert turns == ["m1", "m2"] * 8 + ["m3", "m4"] * 8


async def test_many_messages_of_one_sender_go_in_portions_and_others_overtake_them(bridge: Any) -> None:
    flood = [bridge.message(seq, f"s{seq}", FEW) for seq in range(1, 41)]
    bridge.server.open()
    verdicts = await bridge.outbox.handle(bridge.batch(*flood, bridge.message(41, "small", sender="bob")))
    assert [what for what, to in bridge.server.taken if to.startswith("user")] == ["m41"]
    assert await bridge.ended(verdicts) == [DONE] * 41
    assert len([to for _, to in bridge.server.taken if to.startswith("user")]) == 40 * FEW + 1


async def test_a_large_message_goes_in_portions_even_to_a_few_people(bridge: Any) -> None:
    bridge.server.open()
    large = bridge.message(1, "large", FEW, text="x" * lanes.PORTION_BYTES)
    verdicts = await bridge.outbox.handle(bridge.batch(large, bridge.message(2, "small", sender="bob")))
    assert [what for what, to in bridge.server.taken if to.startswith("user")] == ["m2"]
    assert await bridge.ended(verdicts) == [DONE] * 2
    assert bridge.server.sizes[1:] == [1] * (FEW + 1), "each is a portion: the sender's devices get a copy"


async def test_senders_take_turns_however_many_conversations_they_write_to(bridge: Any) -> None:
    bridge.server.permits.release()
    flood = [bridge.message(seq, f"s{seq}", MANY - 1) for seq in range(1, 11)]
    verdicts = await bridge.outbox.handle(bridge.batch(*flood, bridge.message(11, "other", 3 * MANY, sender="bob")))
    bridge.server.open()
    assert await bridge.ended(verdicts) == [DONE] * 11
    turns = [what == "m11" for what, _ in bridge.server.taken if not what.startswith("stored")]
    assert turns.index(True) <= 2 * MANY, "it is next after the portion that was on its way"
    last = len(turns) - turns[::-1].index(True)
    assert turns[:last].count(False) <= 5 * MANY, "bob's portions come between alice's"


@pytest.mark.parametrize("seed", range(50))
async def test_each_conversation_stays_in_order_whoever_writes_in_it(new_bridge: Any, seed: int) -> None:
    chance, queues, sent = random.Random(seed), Queues(), list[Work]()  # noqa: S311
    for seq in range(1, 60):
        event = new_bridge.message(
            seq, f"s{chance.randrange(5)}", chance.randrange(1, 80), sender=f"user{chance.randrange(4)}"
        )
        incoming, verdict = Incoming("", b"", seq, NOW), asyncio.get_running_loop().create_future()
        queues.add(Work(incoming, event, event.envelope.conversation_id, verdict, NOW))
        while queues and chance.random() < 0.6:
            works = next_in_turn(queues)
            done = chance.randrange(len(works) + 1)
            queues.had_their_turn(works[: done + 1], done)
            sent += works[:done]
    sent += queues
    assert len(sent) == 59
    for conversation in {work.conversation for work in sent}:
        seqs = [work.event.seq for work in sent if work.conversation == conversation]
        assert seqs == sorted(seqs)


async def test_two_large_conversations_take_turns(bridge: Any) -> None:
    bridge.server.open()
    verdicts = await bridge.outbox.handle(
        bridge.batch(bridge.message(1, "one", 4 * MANY), bridge.message(2, "two", 4 * MANY))
    )
    await bridge.ended(verdicts)
    portions = [what for what, to in bridge.server.taken if to in {f"user{n * MANY + MANY // 2}" for n in range(4)}]
    assert portions == ["m1", "m2"] * 4


async def test_portions_of_all_shards_take_turns_at_the_server(new_bridge: Any) -> None:
    slots = asyncio.Semaphore(PORTIONS_AT_ONCE)
    shards = [new_bridge(slots) for _ in range(4)]
    for shard in shards:
        shard.server.permits.release()  # for the answer to the sender
    batches = [await shard.outbox.handle(shard.batch(shard.message(1, "large", 3 * MANY))) for shard in shards]
    most = 0
    while not all(isinstance(later, Later) and later.verdict.done() for [later] in batches):
        for _ in range(20):  # more than a portion needs to begin
            await asyncio.sleep(0)
        busy = [shard for shard in shards if shard.server.in_hand]
        most = max(most, len(busy))
        for shard in busy[:1]:
            shard.server.permits.release()
    assert most == PORTIONS_AT_ONCE
    for shard, verdicts in zip(shards, batches, strict=True):
        assert await new_bridge.ended(verdicts) == [DONE]
        assert len([to for what, to in shard.server.taken if what == "m1"]) == 3 * MANY + 1


async def test_a_message_that_waits_for_a_note_keeps_no_other_shard_waiting(new_bridge: Callable[..., Any]) -> None:
    slots = asyncio.Semaphore(1)
    waiting, other = new_bridge(slots), new_bridge(slots)
    waiting.server.permits.release()  # for the answer to the sender
    [later] = await waiting.outbox.handle(waiting.batch(waiting.message(1, "large", 3 * MANY)))
    waiting.presence.is_noted.clear()
    waiting.server.open()
    other.server.open()
    verdicts = await other.outbox.handle(other.batch(other.message(1, "large", 3 * MANY)))
    assert await other.ended(verdicts) == [DONE]
    assert isinstance(later, Later)
    assert not later.verdict.done()


async def test_a_shard_that_is_closed_leaves_no_task_behind(bridge: Any) -> None:
    before = asyncio.all_tasks()
    bridge.server.permits.release()  # for the answer to the sender
    await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    bridge.presence.is_noted.clear()
    bridge.server.open()
    await bridge.outbox.close()
    assert asyncio.all_tasks() == before


async def test_people_who_are_away_at_their_turn_get_nothing(bridge: Any) -> None:
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    bridge.presence.away = {f"user{number}" for number in range(MANY, 3 * MANY)}
    bridge.server.open()
    await bridge.ended(verdicts)
    assert {to for what, to in bridge.server.taken if what == "m1"} - {"alice"} == {f"user{n}" for n in range(MANY)}


async def test_who_goes_between_two_stanzas_of_a_message_gets_nothing_any_more(
    bridge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "PORTION_BYTES", 1)
    for _ in range(3):  # the answer, the copy for the sender, and the first recipient
        bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", MANY)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert bridge.server.order()[-1] == "m1"
    bridge.presence.away = {"user20"}
    bridge.server.open()
    await bridge.ended(verdicts)
    assert ("m1", "user19") in bridge.server.taken
    assert ("m1", "user20") not in bridge.server.taken


async def test_no_mailbox_moves_past_a_message_that_was_overtaken(bridge: Any) -> None:
    gaps = bridge.presence.gaps
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(bridge.batch(bridge.message(7, "large", 2 * MANY)))
    bridge.server.permits.release()
    bridge.server.permits.release()
    await bridge.outbox.handle(bridge.batch(bridge.message(8, "small")))
    assert (gaps.bound(8), gaps.bound(5), bridge.presence.up_to) == (6, 5, 6)
    bridge.server.open()
    await bridge.ended(verdicts)
    assert (gaps.bound(8), bridge.presence.up_to) == (8, 8)


async def test_after_a_failure_everything_comes_again_and_mailboxes_wait_until_it_has(bridge: Any) -> None:
    gaps = bridge.presence.gaps
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(
        bridge.batch(bridge.message(7, "large", 2 * MANY), bridge.message(8, "large"))
    )
    bridge.server.is_lost = True
    bridge.server.open()
    with pytest.raises(ComponentLost):
        await bridge.ended(verdicts)
    assert all(one.verdict.done() for one in verdicts if isinstance(one, Later))
    assert gaps.bound(8) == 0
    bridge.server.is_lost = False
    bridge.outbox.opened(2)
    assert gaps.bound(8) == 0
    bridge.place = 0
    await bridge.ended(await bridge.outbox.handle(bridge.batch(bridge.message(7, "large", 2 * MANY))))
    assert gaps.bound(8) == 0, "the second message may have been on its way"
    await bridge.ended(await bridge.outbox.handle(bridge.batch(bridge.message(8, "large"))))
    assert gaps.bound(8) == 8


async def test_after_a_portion_has_failed_nothing_newer_goes_out_before_it_comes_again(bridge: Any) -> None:
    bridge.server.permits.release()
    failing = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 2 * MANY)))
    waiting = asyncio.ensure_future(bridge.outbox.handle(bridge.batch(bridge.message(2, "large"))))
    for _ in range(5):
        await asyncio.sleep(0)  # the first portion is on its way, and the batch waits for its turn
    bridge.server.is_lost = True
    bridge.server.permits.release()
    with pytest.raises(Unavailable):
        await bridge.ended(failing)
    bridge.server.is_lost = False
    bridge.server.open()
    with pytest.raises(Unavailable):
        await waiting
    assert ("m2", "user0") not in bridge.server.taken
    bridge.outbox.opened(2)
    bridge.place = 0
    again = [bridge.message(1, "large", 2 * MANY), bridge.message(2, "large")]
    assert await bridge.ended(await bridge.outbox.handle(bridge.batch(*again))) == [DONE, DONE]
    assert [what for what, to in bridge.server.taken if to == "user0"] == ["m1", "m2"]


async def test_what_was_given_up_does_not_end_what_comes_after_delivery_has_begun_anew(bridge: Any) -> None:
    bridge.server.permits.release()
    [later] = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))
    for _ in range(3):
        await asyncio.sleep(0)  # the first portion is on its way
    assert isinstance(later, Later)
    later.verdict.cancel()
    bridge.outbox.opened(1)
    bridge.place = 0
    bridge.server.open()
    assert await bridge.ended(await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 3 * MANY)))) == [DONE]
    assert bridge.presence.gaps.bound(1) == 1


async def test_a_portion_that_fails_after_delivery_has_begun_anew_changes_nothing(bridge: Any) -> None:
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 5 * MANY)))
    for _ in range(3):
        await asyncio.sleep(0)  # the first portion is on its way
    bridge.outbox.connection_lost()
    with pytest.raises(Unavailable):
        await bridge.ended(verdicts)
    bridge.outbox.opened(0)
    bridge.server.is_lost = True
    bridge.server.open()
    for _ in range(3):
        await asyncio.sleep(0)  # and now it fails
    assert bridge.presence.gaps.bound(9) == 9


async def test_a_lost_connection_ends_the_slow_lane_at_once(bridge: Any) -> None:
    bridge.server.permits.release()
    verdicts = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 5 * MANY)))
    bridge.outbox.connection_lost()
    with pytest.raises(Unavailable):
        await bridge.ended(verdicts)
    bridge.server.open()
    bridge.outbox.opened(0)
    await bridge.outbox.handle(bridge.batch(bridge.message(1, "other")))
    assert len([what for what, _ in bridge.server.taken if what == "m1"]) <= MANY + 2


async def test_a_message_that_the_consumer_has_given_up_is_sent_no_further(bridge: Any) -> None:
    bridge.server.permits.release()
    [later] = await bridge.outbox.handle(bridge.batch(bridge.message(1, "large", 5 * MANY)))
    assert isinstance(later, Later)
    later.verdict.cancel()
    bridge.outbox.opened(0)
    bridge.server.open()
    await bridge.outbox.handle(bridge.batch(bridge.message(2, "small")))
    assert len([what for what, _ in bridge.server.taken if what == "m1"]) <= MANY


async def test_a_message_that_was_recalled_while_it_waited_is_not_sent(bridge: Any) -> None:
    bridge.server.permits.release()
    batch = bridge.batch(bridge.message(1, "large", 2 * MANY), bridge.message(2, "large", stored_at=0), received_at=0)
    verdicts = await bridge.outbox.handle(batch)
    bridge.recalls.seqs = [2]
    bridge.server.open()
    assert await bridge.ended(verdicts) == [DONE, DONE]
    assert "m2" not in bridge.server.order()


async def test_a_batch_asks_for_recalls_before_others_wait_for_it(bridge: Any) -> None:
    bridge.recalls.answers.clear()
    bridge.server.open()
    handling = asyncio.ensure_future(
        bridge.outbox.handle(bridge.batch(bridge.message(1, "s", stored_at=0), received_at=0))
    )
    await bridge.recalls.asked.wait()
    assert not bridge.presence.turn.locked()
    bridge.recalls.answers.set()
    assert await handling == [DONE]

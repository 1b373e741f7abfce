"""The pages of all people who catch up take turns: whoever has missed little does not wait for all that others have."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import StoredMessage
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNoted, MissedAnswer, MissedQuestion
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc
from tlim_runtime import background
from xmpp_bridge import catch_up
from xmpp_bridge.catch_up import PAGES_AT_ONCE, CatchUps
from xmpp_bridge.mailbox import Notes
from xmpp_bridge.presences import Came, Gone

SHARD = delivery_shard("ada")
PEOPLE = [user_id for number in range(200) if delivery_shard(user_id := f"user{number}") == SHARD]
Run = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., CatchUps]


def message(user_id: str, seq: int) -> StoredMessage:
    envelope = Envelope(msg_from="d", msg_to=user_id, msg_id=f"m{seq}", msg_type=MsgType.TEXT, body=[{"text": "hello"}])
    return StoredMessage(seq=seq, stored_at=1, recipients=[user_id], envelope=envelope)


def in_memory() -> int:
    gc.collect()  # what earlier tests have left is no concern of this one
    return sum(isinstance(one, StoredMessage) for one in gc.get_objects())


class Store:
    """Has so many pages of one message for each person, and then another one whenever it is asked."""

    def __init__(self, pages: Mapping[str, int]) -> None:
        self.pages = pages
        self.in_hand = self.most = 0
        self.asked: list[str] = []

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        assert timeout_s
        if subject != Rpc.MAILBOX_MISSED:
            return MailboxNoted().to_bytes()
        self.in_hand += 1
        self.most = max(self.most, self.in_hand)
        await asyncio.sleep(0.01)
        self.in_hand -= 1
        question = MissedQuestion.from_bytes(payload)
        self.asked.append(question.user_id)
        seq = (question.after or 0) + 1
        events, more = [message(question.user_id, seq)], seq < self.pages[question.user_id]
        return MissedAnswer(events=events, next=seq, more=more, up_to=seq, receipts=True).to_bytes()


async def all_catch_up(
    store: Store, line: Any, catch_ups: CatchUps, notes: Notes, at_work: Any, *, times: int = 1
) -> None:
    """Let everybody come who has pages, in that order, and catch up. Before that they come and go, so many `times`."""
    async with at_work(notes, catch_ups):
        for user_id in store.pages:
            for number in range(times):
                catch_ups.roll.hear(Came(user_id, f"phone{number}"))
                await asyncio.sleep(0.001)
                if number < times - 1:
                    catch_ups.roll.hear(Gone(user_id, f"phone{number}", None))
        await asyncio.sleep(2 * sum(store.pages.values()) + 20)
    assert set(line.marks) == set(store.pages)


def test_whoever_has_missed_one_page_does_not_wait_for_all_pages_of_two_others(
    jumping: Run, catch_ups_of: Make, at_work: Any, slow_line: Any
) -> None:
    async def story() -> None:
        first, second, third = PEOPLE[:3]
        store, line = Store({first: 50, second: 50, third: 1}), slow_line
        notes = Notes(store, SHARD, lambda: None)
        await all_catch_up(store, line, catch_ups_of(store, line, notes, asyncio.Semaphore(2)), notes, at_work)
        assert line.pages == 101
        assert line.marks[third] <= 5

    jumping(story())


def test_few_pages_are_asked_for_and_sent_and_in_memory_however_many_people_catch_up(
    jumping: Run, catch_ups_of: Make, at_work: Any, slow_line: Any
) -> None:
    async def story() -> None:
        store, line, before = Store(dict.fromkeys(PEOPLE, 4)), slow_line, in_memory()
        notes = Notes(store, SHARD, lambda: None)
        asyncio.get_running_loop().call_at(20.5, lambda: seen.append(in_memory() - before))
        await all_catch_up(store, line, catch_ups_of(store, line, notes, asyncio.Semaphore(9)), notes, at_work)
        assert line.pages == 4 * len(PEOPLE)
        assert (store.most, line.most, seen) == (PAGES_AT_ONCE, PAGES_AT_ONCE, [PAGES_AT_ONCE])

    seen: list[int] = []
    jumping(story())


def test_nothing_is_asked_for_somebody_who_has_gone_while_they_waited_for_the_turn_of_their_page(
    jumping: Run, catch_ups_of: Make, at_work: Any, slow_line: Any
) -> None:
    async def story() -> None:
        store, line = Store(dict.fromkeys(PEOPLE[:3], 1)), slow_line
        notes = Notes(store, SHARD, lambda: None)
        await all_catch_up(store, line, catch_ups_of(store, line, notes, asyncio.Semaphore(2)), notes, at_work, times=5)
        assert len(store.asked) <= 3 + PAGES_AT_ONCE

    jumping(story())


def test_pages_and_portions_and_a_page_that_live_deliveries_wait_for_never_wait_for_each_other_in_a_circle(
    jumping: Run, catch_ups_of: Make, at_work: Any, slow_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "PAGES_BESIDE", 1)

    async def story() -> None:
        turn, slots = asyncio.Lock(), asyncio.Semaphore(1)
        store, line = Store(dict.fromkeys(PEOPLE, 4)), slow_line
        notes = Notes(store, SHARD, lambda: None)
        catch_ups = catch_ups_of(store, line, notes, slots, turn)

        async def send_portions() -> None:
            while len(line.marks) < len(PEOPLE):
                async with slots, turn:
                    for user_id in PEOPLE:
                        catch_ups.roll.is_due(user_id, 7)
                    await asyncio.sleep(0.1)

        portions = asyncio.create_task(send_portions())
        await all_catch_up(store, line, catch_ups, notes, at_work)
        await portions
        assert line.pages == 7 * len(PEOPLE)

    jumping(story())


def test_whoever_waits_for_the_pages_of_others_does_not_hang(
    jumping: Run, catch_ups_of: Make, at_work: Any, slow_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Liveness kills a bridge with work that hangs, and a slow server can make the line long."""
    monkeypatch.setattr(background, "HUNG_S", 0)

    async def story() -> None:
        store, line = Store(dict.fromkeys(PEOPLE[:6], 3)), slow_line
        notes = Notes(store, SHARD, lambda: None)
        catch_ups = catch_ups_of(store, line, notes, asyncio.Semaphore(2))
        deliver, hanging = line.deliver, list[int]()

        async def delivered(stanzas: Iterable[str]) -> None:
            await deliver(stanzas)
            hanging.append(sum(worker.trouble is not None for worker in catch_ups.workers))

        line.deliver = delivered
        await all_catch_up(store, line, catch_ups, notes, at_work)
        assert max(hanging) == PAGES_AT_ONCE, "those whose pages are on their way"

    jumping(story())

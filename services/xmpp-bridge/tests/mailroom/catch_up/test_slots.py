"""Pages of what people have missed take turns with the portions of the slow lane, in all shards of a bridge."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import StoredMessage
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNoted, MissedAnswer
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc
from xmpp_bridge import catch_up
from xmpp_bridge.catch_up import CatchUps
from xmpp_bridge.mailbox import Notes
from xmpp_bridge.presences import Came, Gone, Hello

SHARDS = range(2)
PEOPLE = [user_id for number in range(100) if delivery_shard(user_id := f"user{number}") in SHARDS]
SHARD = delivery_shard("ada")
Run = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., CatchUps]


class OnePage:
    """Everybody has missed one message."""

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        assert payload
        assert timeout_s
        if subject != Rpc.MAILBOX_MISSED:
            return MailboxNoted().to_bytes()
        envelope = Envelope(msg_from="dora", msg_to="ada", msg_id="m1", msg_type=MsgType.TEXT, body=[{"text": "hello"}])
        event = StoredMessage(seq=5, stored_at=1, recipients=["ada"], envelope=envelope)
        return MissedAnswer(events=[event], next=5, more=False, up_to=5, receipts=True).to_bytes()


async def all_catch_up(make: Make, line: Any, slots: asyncio.Semaphore) -> None:
    store, works = OnePage(), []
    for shard in SHARDS:
        notes = Notes(store, shard, lambda: None)
        notes.begin(1)
        catch_ups = make(store, line, notes, slots)
        works += [notes.background, *catch_ups.workers]
        catch_ups.roll.hear(Hello())
        for user_id in PEOPLE:
            if delivery_shard(user_id) == shard:
                catch_ups.roll.hear(Came(user_id, "phone"))
        catch_ups.roll.settle({})
    for work in works:
        work.start()
    await asyncio.sleep(60)
    for work in works:
        await work.stop()
    assert (len(line.marks), line.pages) == (len(PEOPLE), len(PEOPLE))


def test_the_pages_of_all_shards_are_on_their_way_as_few_at_a_time_as_portions(
    jumping: Run, catch_ups_of: Make, slow_line: Any
) -> None:
    line = slow_line
    jumping(all_catch_up(catch_ups_of, line, asyncio.Semaphore(2)))
    assert line.most == 2


def test_a_page_that_live_deliveries_wait_for_waits_for_no_portion(
    jumping: Run, catch_ups_of: Make, slow_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "PAGES_BESIDE", 0)
    line = slow_line
    jumping(all_catch_up(catch_ups_of, line, asyncio.Semaphore(0)))
    assert line.most > 0


@pytest.mark.parametrize("signs", [[], [Came("ada", "tablet")]])
def test_a_page_of_somebody_who_has_gone_while_it_waited_is_not_sent(
    jumping: Run, catch_ups_of: Make, slow_line: Any, at_work: Any, signs: list[Came]
) -> None:
    """If another device came meanwhile, it gets everything from the beginning, and not that page first."""

    async def story() -> None:
        store, line, slots, notes = OnePage(), slow_line, asyncio.Semaphore(0), Notes(OnePage(), SHARD, lambda: None)
        catch_ups = catch_ups_of(store, line, notes, slots)
        async with at_work(notes, catch_ups, Came("ada", "phone")):
            await asyncio.sleep(10)  # the page has come, and waits
            catch_ups.roll.hear(Gone("ada", "phone", None))
            for sign in signs:
                catch_ups.roll.hear(sign)
            for _ in range(3):
                slots.release()
            await asyncio.sleep(60)
        assert (line.pages, len(line.marks)) == (len(signs), len(signs))

    jumping(story())

"""A person that comes and goes all the time makes nobody else wait."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable
from itertools import count, product
from types import SimpleNamespace
from typing import Any

import uvloop
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNote, MailboxNoted, MailboxNotes, MissedAnswer, MissedQuestion
from tlim_protocol.subjects import Rpc
from tlim_runtime.outages import Unavailable
from xmpp_bridge.catch_up import CatchUps
from xmpp_bridge.mailbox import Notes, merged
from xmpp_bridge.presences import Came, Gone, Hello
from xmpp_bridge.roll import Roll

EPOCH = 1_800_000_000.0  # as in the world of conftest


class Line:
    """A server that takes everything over."""

    def send(self, stanzas: str) -> None: ...

    async def deliver(self, stanzas: Iterable[str]) -> None: ...

    async def barrier(self) -> None: ...


class Store:
    """Takes a moment to say that nobody has missed anything."""

    def __init__(self) -> None:
        self.is_up = True
        self.asked = Counter[str]()
        self.served = defaultdict[str, asyncio.Event](asyncio.Event)
        self.noted: list[MailboxNote] = []

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        del timeout_s
        if not self.is_up:
            raise Unavailable("the store is away")
        await asyncio.sleep(0.01)
        if subject == Rpc.MAILBOX_MISSED:
            user_id = MissedQuestion.from_bytes(payload).user_id
            self.asked[user_id] += 1
            self.served[user_id].set()
            return MissedAnswer(events=[], next=0, more=False, up_to=5, receipts=True).to_bytes()
        self.noted += MailboxNotes.from_bytes(payload).notes
        return MailboxNoted().to_bytes()


async def noise(roll: Roll) -> None:
    for number in count():
        roll.hear(Came("ada", f"s{number}"))
        await asyncio.sleep(0.001)
        roll.hear(Gone("ada", f"s{number}", None))


def test_a_catch_up_waits_for_one_of_each_person_before_it(
    jumping: Callable[[Coroutine[Any, Any, None]], None], catch_ups_of: Callable[..., CatchUps]
) -> None:
    async def story() -> None:
        store = Store()
        notes = Notes(store, delivery_shard("bob"), lambda: None)
        notes.begin(1)
        catch_ups = catch_ups_of(store, Line(), notes)
        works = (notes.background, *catch_ups.workers)
        for work in works:
            work.start()
        roll = catch_ups.roll
        roll.hear(Hello())
        roll.settle({})
        comes_and_goes = asyncio.create_task(noise(roll))
        await asyncio.sleep(5)
        roll.hear(Came("bob", "phone"))
        before = store.asked["ada"]
        await store.served["bob"].wait()
        assert store.asked["ada"] - before <= 3
        assert catch_ups.waiting <= 1
        comes_and_goes.cancel()
        for work in works:
            await work.stop()

    jumping(story())


async def test_a_note_waits_for_few_notes_of_each_person_before_it() -> None:
    store = Store()
    notes = Notes(store, delivery_shard("bob"), lambda: None)
    notes.begin(1)
    notes.background.start()
    for number in range(5_000):
        notes.add(MailboxNote(user_id="ada", sessions=["phone"] * (number % 2 + 1)))
        notes.add(MailboxNote(user_id="kim", at_most=number))
        if number % 1_000 == 0:
            await asyncio.sleep(0)
    notes.add(MailboxNote(user_id="bob"))
    await notes.written()
    await notes.background.stop()
    assert len(store.noted) <= 7
    assert store.noted[-1].user_id == "bob"


NOTES = [
    *(MailboxNote(user_id="bob", taken=taken, at_most=most) for taken in (None, 15, 30) for most in (None, 5, 25)),
    *(MailboxNote(user_id="bob", sessions=[one], is_new=is_new) for one in "ab" for is_new in (False, True)),
    *(MailboxNote(user_id="bob", sessions=[one], is_stale=True, taken=taken) for one in "ab" for taken in (None, 15)),
]


async def test_one_note_in_place_of_two_leaves_the_mailbox_as_the_two_would(simulated: SimpleNamespace) -> None:
    def after(*notes: MailboxNote, live_since: float | None) -> Any:
        log = simulated.Log(random.SystemRandom())
        log.settled[delivery_shard("bob")] = 20, EPOCH
        box = log.mailboxes["bob"]
        box.taken, box.sessions, box.live_since = 10, ["a"], live_since
        for note in notes:
            log._note(note)
        is_live = box.live_since is not None
        return box.taken, box.sessions, is_live, is_live and box.live_since <= EPOCH

    for first, second, since in product(NOTES, NOTES, (None, EPOCH - 1, EPOCH + 1)):
        both = merged(first, second)
        if both is not None:
            assert after(both, live_since=since) == after(first, second, live_since=since), (first, second)


def test_a_person_who_waits_already_is_not_put_into_the_queue_again_in_the_loop_of_the_services(
    catch_ups_of: Callable[..., CatchUps],
) -> None:
    async def story() -> None:
        store = Store()
        catch_ups = catch_ups_of(store, Line(), Notes(store, delivery_shard("bob"), lambda: None))
        for _ in range(2):
            catch_ups.begin("bob")
            await asyncio.sleep(0)
        assert catch_ups.waiting == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())

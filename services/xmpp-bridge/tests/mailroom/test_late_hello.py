"""A module of the XMPP server that is loaded late or never, and a store that answers late."""

import asyncio
import time
from collections.abc import Callable, Iterable

from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import LiveAnswer, LivePerson, MailboxNote, MailboxNoted, MailboxNotes
from tlim_protocol.subjects import Rpc
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from xmpp_bridge.attendance import MISSED_WITHIN_S, Attendance
from xmpp_bridge.mailroom import Mailroom
from xmpp_bridge.presences import Came, Hello, Missed
from xmpp_bridge.translate import BridgeAddresses


class Line:
    """A server that takes everything over."""

    def send(self, stanzas: str) -> None: ...

    async def deliver(self, stanzas: Iterable[str]) -> None: ...

    async def barrier(self) -> None: ...


class Store:
    """Says that bob was there with his phone, when it is up."""

    def __init__(self) -> None:
        self.is_up = False
        self.asked = asyncio.Event()
        self.noted: list[MailboxNote] = []

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        del timeout_s
        self.asked.set()
        if not self.is_up:
            raise Unavailable("the store is away")
        if subject == Rpc.MAILBOX_LIVE:
            return LiveAnswer(term=1, people=[LivePerson(user_id="bob", sessions=["phone"])], more=False).to_bytes()
        if subject == Rpc.MAILBOX_MISSED:
            raise Unavailable("another question")
        self.noted += MailboxNotes.from_bytes(payload).notes
        return MailboxNoted().to_bytes()


class Clock:
    """Stands still, or jumps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_mailroom(
    attendance: Attendance, store: Store, begun_anew: asyncio.Event, clock: Callable[[], float] = time.monotonic
) -> Mailroom:
    return Mailroom(
        Line(),
        store,
        BridgeAddresses("im.example", "bridge.im.example"),
        Metrics(),
        shard=delivery_shard("bob"),
        attendance=attendance,
        slots=asyncio.Semaphore(1),
        outdated=begun_anew.set,
        monotonic=clock,
    )


async def test_the_shard_is_begun_anew_because_it_has_no_term_to_write_notes_in() -> None:
    begun_anew = asyncio.Event()
    attendance, store = Attendance(), Store()
    mailroom = make_mailroom(attendance, store, begun_anew)
    mailroom.start()
    await mailroom.settled()
    for sign in (Hello(), Came("bob", "phone")):
        attendance.hear(sign)
        mailroom.hear(sign)
    assert begun_anew.is_set()
    assert mailroom.server_keeps, "until then all is as before"
    assert attendance.of(delivery_shard("bob")) == [Hello(), Came("bob", "phone")]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not store.asked.is_set()
    await mailroom.stop()


async def test_what_reached_nobody_is_known_however_long_the_store_was_away() -> None:
    clock, store = Clock(), Store()
    attendance = Attendance(clock)
    for sign in (Hello(), Came("bob", "phone"), Missed("bob", 9)):
        attendance.hear(sign)
    mailroom = make_mailroom(attendance, store, asyncio.Event())
    mailroom.start()
    await store.asked.wait()
    mailroom.hear(Missed("bob", 7))
    clock.now = 4 * MISSED_WITHIN_S
    store.is_up = True
    await mailroom.settled()
    await mailroom.noted(["bob"])
    assert 6 in [note.at_most for note in store.noted]
    await mailroom.stop()


async def test_without_a_module_nothing_is_remembered_of_what_is_handed_over() -> None:
    clock = Clock()
    mailroom = make_mailroom(Attendance(), Store(), asyncio.Event(), clock)
    mailroom.start()
    await mailroom.settled()
    for seq in range(1, 100):
        clock.now += 1
        mailroom.handed_over(seq)
    assert not mailroom._handed_over._steps
    await mailroom.stop()

"""What had been handed over long ago is noted behind the notes of people who had left before."""

import asyncio

from tlim_protocol.events import MailboxNote, MailboxNoted, MailboxNotes
from tlim_runtime.outages import Unavailable
from xmpp_bridge.mailbox import Notes
from xmpp_bridge.mailroom import HandedOver


class Store:
    """Takes notes when it is up."""

    def __init__(self) -> None:
        self.is_up = False
        self.asked = asyncio.Event()
        self.taken: list[MailboxNotes] = []

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        del subject, timeout_s
        self.asked.set()
        if not self.is_up:
            raise Unavailable("the store is away")
        self.taken.append(MailboxNotes.from_bytes(payload))
        return MailboxNoted().to_bytes()


async def test_who_left_while_the_store_was_away_is_noted_before_what_was_handed_over_since() -> None:
    store = Store()
    notes = Notes(store)
    notes.background.start()
    notes.add(MailboxNote(user_id="bob"))
    await store.asked.wait()
    notes.settle(100, 1_000)
    store.is_up = True
    notes.add(MailboxNote(user_id="cem"))
    await notes.written()
    notes.add(MailboxNote(user_id="dan"))
    await notes.written()
    await notes.background.stop()
    assert [[note.user_id for note in one.notes] for one in store.taken if one.settled_seq is None] == [["bob", "cem"]]
    assert [one.settled_seq for one in store.taken if one.settled_seq is not None] == [100]


def test_what_was_handed_over_before_the_connection_was_lost_does_not_count_until_something_newer_does() -> None:
    now = 0.0
    handed_over = HandedOver(lambda: now)
    handed_over.note(5)
    handed_over.forget()
    now = 170.0
    handed_over.note(7)
    now = 190.0
    assert handed_over.before(180) is None
    now = 350.0
    assert handed_over.before(180) == 7

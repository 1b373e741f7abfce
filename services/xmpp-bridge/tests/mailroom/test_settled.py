"""What had been handed over long ago is noted behind the notes of people who had left before."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNote, MailboxNoted, MailboxNotes
from tlim_runtime.outages import Unavailable
from xmpp_bridge.mailbox import Notes


class Store:
    """Takes notes when it is up."""

    def __init__(self) -> None:
        self.is_up = False
        self.is_outdated = False
        self.asked = asyncio.Event()
        self.taken: list[MailboxNotes] = []

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        del subject, timeout_s
        self.asked.set()
        if not self.is_up:
            raise Unavailable("the store is away")
        if self.is_outdated:
            return MailboxNoted(is_outdated=True).to_bytes()
        self.taken.append(MailboxNotes.from_bytes(payload))
        return MailboxNoted().to_bytes()


async def test_who_left_while_the_store_was_away_is_noted_before_what_was_handed_over_since() -> None:
    store = Store()
    notes = Notes(store, delivery_shard("bob"), lambda: None)
    notes.begin(1)
    notes.background.start()
    notes.add(MailboxNote(user_id="bob"))
    await store.asked.wait()
    notes.settle(100, 1_000)
    store.is_up = True
    notes.add(MailboxNote(user_id="cat"))
    await notes.written()
    notes.add(MailboxNote(user_id="deb"))
    await notes.written()
    await notes.background.stop()
    assert [[note.user_id for note in one.notes] for one in store.taken if one.settled_seq is None] == [["bob", "cat"]]
    assert [one.settled_seq for one in store.taken if one.settled_seq is not None] == [100]


class Garbled(Store):
    """Nobody can read its first answer."""

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        was_asked = self.asked.is_set()
        answer = await super().request(subject, payload, timeout_s)
        return answer if was_asked else b"{"


def test_a_note_is_written_although_the_first_answer_cannot_be_read(
    jumping: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def story() -> None:
        store = Garbled()
        store.is_up = True
        notes = Notes(store, delivery_shard("bob"), lambda: None)
        notes.begin(1)
        notes.background.start()
        notes.add(MailboxNote(user_id="bob"))
        await notes.written()
        await notes.background.stop()
        assert [[note.user_id for note in one.notes] for one in store.taken] == [["bob"]] * 2

    jumping(story())


async def test_notes_wait_for_a_term_and_are_dropped_when_another_bridge_has_begun_a_later_one() -> None:
    store, told = Store(), list[str]()
    store.is_up = True
    notes = Notes(store, delivery_shard("bob"), lambda: told.append("outdated"))
    notes.background.start()
    notes.add(MailboxNote(user_id="bob"))
    notes.settle(100, 1_000)
    notes.begin(7)
    await notes.written()
    assert [(one.term, len(one.notes)) for one in store.taken][:1] == [(7, 1)]
    store.is_outdated = True
    notes.add(MailboxNote(user_id="cat"))
    await notes.written()
    await notes.background.stop()
    assert told == ["outdated"]
    assert [(one.term, note.user_id) for one in store.taken for note in one.notes] == [(7, "bob")]

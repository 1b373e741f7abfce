"""A catch-up is over when the mark at its end is sent."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNoted, MissedAnswer
from tlim_protocol.subjects import Rpc
from xmpp_bridge.catch_up import CatchUps
from xmpp_bridge.mailbox import Notes
from xmpp_bridge.presences import Came, Hello
from xmpp_bridge.shares import LeaseLapsed


class Line:
    """Notes what is sent. At the first time its lease has lapsed."""

    def __init__(self) -> None:
        self.lapses = 1
        self.sent: list[str] = []

    def send(self, stanzas: str) -> None:
        if self.lapses:
            self.lapses -= 1
            raise LeaseLapsed("a moment too late")
        self.sent.append(stanzas)

    async def deliver(self, stanzas: Iterable[str]) -> None:
        for stanza in stanzas:
            self.send(stanza)

    async def barrier(self) -> None:
        """There is nothing to wait for."""


class Store:
    """Nobody has missed anything."""

    def __init__(self) -> None:
        self.notes = 0

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        del payload, timeout_s
        if subject == Rpc.MAILBOX_MISSED:
            return MissedAnswer(events=[], next=0, more=False, up_to=5, receipts=True).to_bytes()
        self.notes += 1
        return MailboxNoted().to_bytes()


def test_the_mark_comes_and_the_person_is_noted_although_the_lease_had_lapsed_for_a_moment(
    jumping: Callable[[Coroutine[Any, Any, None]], None], catch_ups_of: Callable[..., CatchUps]
) -> None:
    async def story() -> None:
        store, line = Store(), Line()
        notes = Notes(store, delivery_shard("bob"), lambda: None)
        notes.begin(1)
        catch_ups = catch_ups_of(store, line, notes)
        works = (notes.background, *catch_ups.workers)
        for work in works:
            work.start()
        for sign in (Hello(), Came("bob", "phone")):
            catch_ups.roll.hear(sign)
        catch_ups.roll.settle({})
        await asyncio.sleep(5)
        assert [("caught-up" in stanza, "bob@" in stanza) for stanza in line.sent] == [(True, True)]
        assert store.notes == 1
        for work in works:
            await work.stop()

    jumping(story())

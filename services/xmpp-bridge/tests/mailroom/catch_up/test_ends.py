"""A catch-up is over when the mark at its end is sent."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNoted, MissedAnswer
from tlim_protocol.subjects import Rpc
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from xmpp_bridge.catch_up import FAILED_S, CatchUps
from xmpp_bridge.mailbox import Notes
from xmpp_bridge.presences import Came, Gone
from xmpp_bridge.shares import LeaseLapsed


class Line:
    """Notes what is sent. The first times its lease has lapsed."""

    def __init__(self, lapses: int) -> None:
        self.lapses = lapses
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
    """Nobody has missed anything that is sent."""

    def __init__(self, *, receipts: bool = True) -> None:
        self.receipts = receipts
        self.notes = 0

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        del payload, timeout_s
        if subject == Rpc.MAILBOX_MISSED:
            return MissedAnswer(events=[], next=0, more=False, up_to=5, receipts=self.receipts).to_bytes()
        self.notes += 1
        return MailboxNoted().to_bytes()


async def until_caught_up(store: Store, line: Line, catch_ups_of: Callable[..., CatchUps], at_work: Any) -> None:
    """Let bob come, and let his catch-up end."""
    notes = Notes(store, delivery_shard("bob"), lambda: None)
    async with at_work(notes, catch_ups_of(store, line, notes), Came("bob", "phone")):
        await asyncio.sleep(5)


class Mistaken(Store):
    """Nobody can read what it answers."""

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        answer = await super().request(subject, payload, timeout_s)
        return b"{}" if subject == Rpc.MAILBOX_MISSED else answer


def test_whoever_waits_for_the_next_try_is_counted(
    jumping: Callable[[Coroutine[Any, Any, None]], None], catch_ups_of: Callable[..., CatchUps], at_work: Any
) -> None:
    async def story() -> None:
        store = Mistaken()
        notes = Notes(store, delivery_shard("bob"), lambda: None)
        catch_ups = catch_ups_of(store, Line(lapses=0), notes)
        async with at_work(notes, catch_ups, Came("bob", "phone")):
            await asyncio.sleep(FAILED_S / 2)
            assert catch_ups.waiting == 1

    jumping(story())


class Away(Store):
    """Nobody answers what people have missed."""

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        if subject == Rpc.MAILBOX_MISSED:
            raise BrokerUnavailable("no answer")
        return await super().request(subject, payload, timeout_s)


def test_readiness_is_red_only_while_somebody_waits_whom_the_store_has_failed(
    jumping: Callable[[Coroutine[Any, Any, None]], None], catch_ups_of: Callable[..., CatchUps], at_work: Any
) -> None:
    async def story() -> None:
        store = Away()
        notes = Notes(store, delivery_shard("bob"), lambda: None)
        catch_ups = catch_ups_of(store, Line(lapses=0), notes)
        async with at_work(notes, catch_ups, Came("bob", "phone")):
            await asyncio.sleep(5)
            with pytest.raises(Unavailable, match="what people have missed: no answer"):
                await catch_ups.ping()
            catch_ups.roll.hear(Gone("bob", "phone", None))
            await catch_ups.ping()

    jumping(story())


def test_the_mark_comes_and_the_person_is_noted_although_the_lease_had_lapsed_for_a_moment(
    jumping: Callable[[Coroutine[Any, Any, None]], None], catch_ups_of: Callable[..., CatchUps], at_work: Any
) -> None:
    store, line = Store(), Line(lapses=1)
    jumping(until_caught_up(store, line, catch_ups_of, at_work))
    assert [("caught-up" in stanza, "bob@" in stanza) for stanza in line.sent] == [(True, True)]
    assert store.notes == 1


@pytest.mark.parametrize(("receipts", "more"), [(True, "false"), (False, "true")])
def test_the_mark_says_that_sync_has_more_when_receipts_were_left_out(
    jumping: Callable[[Coroutine[Any, Any, None]], None],
    catch_ups_of: Callable[..., CatchUps],
    at_work: Any,
    receipts: bool,
    more: str,
) -> None:
    line = Line(lapses=0)
    jumping(until_caught_up(Store(receipts=receipts), line, catch_ups_of, at_work))
    assert [f"more='{more}'" in stanza for stanza in line.sent] == [True]

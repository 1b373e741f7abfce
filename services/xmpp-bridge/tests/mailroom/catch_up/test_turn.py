"""Live deliveries wait for the last page of a busy person, but not for a store that hangs."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest
from tlim_protocol.identity import delivery_shard
from tlim_protocol.mailboxes import MailboxNoted, MissedAnswer
from tlim_protocol.subjects import Rpc
from tlim_runtime.outages import NoAnswerInTime
from xmpp_bridge import catch_up
from xmpp_bridge.catch_up import CatchUps
from xmpp_bridge.mailbox import MISSED_WITHIN_S, Notes
from xmpp_bridge.presences import Came

NEWEST = 9
Run = Callable[[Coroutine[Any, Any, None]], None]
Make = Callable[..., CatchUps]


class Line:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, stanzas: str) -> None:
        self.sent.append(stanzas)

    async def deliver(self, stanzas: Iterable[str]) -> None:
        self.sent.extend(stanzas)

    async def barrier(self) -> None:
        """There is nothing to wait for."""


class Store:
    """Nobody has missed anything that is sent. Some questions, by their numbers, get no answer: an instance hangs."""

    def __init__(self, unanswered: Iterable[int], up_to: Callable[[int], int] = lambda _number: NEWEST) -> None:
        self.unanswered = frozenset(unanswered)
        self.up_to = up_to
        self.patience: list[float] = []

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        assert payload
        if subject != Rpc.MAILBOX_MISSED:
            return MailboxNoted().to_bytes()
        self.patience.append(timeout_s)
        number = len(self.patience)
        if number in self.unanswered:
            await asyncio.sleep(timeout_s)
            raise NoAnswerInTime(subject)
        return MissedAnswer(events=[], next=0, more=False, up_to=self.up_to(number), receipts=True).to_bytes()


async def bob_comes(
    store: Store, line: Line, make: Make, at_work: Any, *, turn: asyncio.Lock, meanwhile: Callable[[], Any]
) -> None:
    """Let bob come, and something newer be skipped for them, while `meanwhile` goes on. Their catch-up must end."""
    notes = Notes(store, delivery_shard("bob"), lambda: None)
    catch_ups = make(store, line, notes, None, turn)
    async with at_work(notes, catch_ups, Came("bob", "phone")):
        assert not catch_ups.roll.is_due("bob", NEWEST)
        await asyncio.sleep(0.1)
        await meanwhile()
        await asyncio.sleep(60)
    assert [("caught-up" in stanza, "bob@" in stanza) for stanza in line.sent] == [(True, True)]


def test_live_deliveries_do_not_wait_for_a_store_that_hangs(
    jumping: Run, catch_ups_of: Make, at_work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "PAGES_BESIDE", 0)

    async def story() -> None:
        turn, clock = asyncio.Lock(), asyncio.get_running_loop().time

        async def deliver() -> None:
            for _ in range(5):
                begun = clock()
                async with turn:
                    waited.append(clock() - begun)
                await asyncio.sleep(0.1)

        waited: list[float] = []
        await bob_comes(Store(range(1, 5)), Line(), catch_ups_of, at_work, turn=turn, meanwhile=deliver)
        assert len(waited) == 5
        assert 0 < max(waited) <= 0.5

    jumping(story())


def test_a_catch_up_without_an_answer_in_time_goes_on_beside_live_deliveries(
    jumping: Run, catch_ups_of: Make, at_work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up, "PAGES_BESIDE", 1)

    async def story() -> None:
        async def nothing() -> None:
            pass

        store = Store([2], lambda number: NEWEST if number > 2 else NEWEST - 1)
        await bob_comes(store, Line(), catch_ups_of, at_work, turn=asyncio.Lock(), meanwhile=nothing)
        assert store.patience == [MISSED_WITHIN_S, catch_up.ALONE_S, MISSED_WITHIN_S]

    jumping(story())

"""The catch-ups of one shard beside a store and a connection of the test, in a time that jumps."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from xmpp_bridge.catch_up import CatchUps
from xmpp_bridge.mailbox import Notes
from xmpp_bridge.presences import Hello, Sign


@asynccontextmanager
async def at_work(notes: Notes, catch_ups: CatchUps, *signs: Sign) -> AsyncIterator[None]:
    """Have a shard's catch-ups worked on while entered; the server says these signs before the roll is called."""
    notes.begin(1)
    works = (notes.background, *catch_ups.workers)
    for work in works:
        work.start()
    for sign in (Hello(), *signs):
        catch_ups.roll.hear(sign)
    catch_ups.roll.settle({})
    yield
    for work in works:
        await work.stop()


@pytest.fixture(name="at_work")
def at_work_fixture() -> Callable[..., AbstractAsyncContextManager[None]]:
    return at_work


class SlowLine:
    """The connection to a server that takes a second for a page. `marks`: when each person was told of the end."""

    def __init__(self) -> None:
        self.marks: dict[str, float] = {}
        self.pages = self.in_hand = self.most = 0

    def send(self, stanzas: str) -> None:
        assert "caught-up" in stanzas
        user_id = stanzas.partition(" to='")[2].partition("@")[0]
        assert user_id not in self.marks
        self.marks[user_id] = asyncio.get_running_loop().time()

    async def deliver(self, stanzas: Iterable[str]) -> None:
        self.pages += any(stanzas)
        self.in_hand += 1
        self.most = max(self.most, self.in_hand)
        await asyncio.sleep(1)
        self.in_hand -= 1

    async def barrier(self) -> None:
        """There is nothing to wait for."""


@pytest.fixture
def slow_line() -> SlowLine:
    return SlowLine()

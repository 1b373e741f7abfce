"""A lost stream is made again, one attempt at a time. Only its owner ends this."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tlim_xmpp import keeper as module
from tlim_xmpp.keeper import Patience, StreamKeeper


class FakeStream:
    """slixmpp's stream as the keeper sees it. The test decides the outcome of each attempt."""

    def __init__(self) -> None:
        self.attempts = 0
        self.tried = asyncio.Event()
        self.answer: Callable[[], object] = lambda: None
        self.aborted = 0
        self.disconnected = 0
        self._handlers: dict[str, Callable[[object], None]] = {}
        self._run_out_filters = None

    def add_event_handler(self, event: str, handler: Callable[[object], None]) -> None:
        self._handlers[event] = handler

    def connect(self, host: str, port: int) -> None:
        assert (host, port) == ("h", 5)
        self.attempts += 1
        self.tried.set()
        self.answer()

    def fire(self, event: str, reason: object = "gone") -> None:
        self._handlers[event](reason)

    def abort(self) -> None:
        self.aborted += 1
        self.fire("disconnected", None)

    def cancel_connection_attempt(self) -> None: ...

    def is_connected(self) -> bool:
        return self.aborted == 0

    async def disconnect(self, wait: float) -> None:
        assert wait == 2
        self.disconnected += 1


class Kept:
    """A keeper with its fake stream, and the calls that its owner got."""

    def __init__(self, *, attempt: float = 5, idle: float = 60) -> None:
        self.stream = FakeStream()
        self.told: list[tuple[str, bool]] = []
        self.pinged = asyncio.Event()
        self.server_answers = False
        self.stepped = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        patience = Patience(longest_delay=0.01, attempt=attempt, idle=idle)
        self.keeper = StreamKeeper(
            self.stream,  # type: ignore[arg-type] # a fake
            "h",
            5,
            patience,
            ping=self._ping,
            on_down=lambda reason, was_up: self.told.append((reason, was_up)),
            on_step=self.stepped.set,
        )

    def start(self) -> None:
        self._running = asyncio.create_task(self.keeper.run())

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self.keeper.close(wait=2)

    async def _ping(self) -> None:
        self.pinged.set()
        if not self.server_answers:
            await asyncio.get_running_loop().create_future()

    async def next_steps(self) -> None:
        for _ in range(3):
            self.stepped.clear()
            await self.stepped.wait()

    async def next_attempt(self) -> None:
        self.stream.tried.clear()
        await self.stream.tried.wait()


@pytest_asyncio.fixture
async def kept(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
    kept = Kept()
    kept.stream.answer = kept.keeper.went_up
    yield kept
    await kept.close()


async def test_a_lost_connection_is_made_again_and_its_owner_is_told_once(kept: Kept) -> None:
    kept.start()
    await kept.keeper.up()
    kept.stream.fire("disconnected", "the server left")
    kept.stream.fire("disconnected", "the server left")
    assert not kept.keeper.is_up
    await kept.keeper.up()
    assert kept.told == [("the server left", True)]
    assert kept.stream.attempts == 2


async def test_attempts_go_on_until_one_succeeds(kept: Kept) -> None:
    kept.stream.answer = lambda: kept.stream.fire("connection_failed", "nobody there")
    kept.start()
    for _ in range(3):
        await kept.next_attempt()
    kept.stream.answer = kept.keeper.went_up
    await kept.keeper.up()
    assert set(kept.told) == {("nobody there", False)}


async def test_a_login_that_comes_when_its_attempt_was_given_up_does_not_count(kept: Kept) -> None:
    kept.stream.answer = lambda: kept.stream.fire("connection_failed", "no answer in time")
    kept.start()
    await kept.next_attempt()
    assert not kept.keeper.went_up()
    assert kept.keeper.is_down
    assert not kept.keeper.is_up
    kept.stream.answer = kept.keeper.went_up
    await kept.next_attempt()
    assert kept.keeper.is_up


async def test_a_server_that_lets_nobody_in_is_left() -> None:
    kept = Kept(attempt=0.01)
    assert not await kept.keeper.attempt()
    assert kept.stream.aborted == 1
    assert kept.told == [("no answer in time", False)]


async def test_while_it_is_not_wanted_no_connection_is_made(kept: Kept) -> None:
    assert await kept.keeper.attempt()
    kept.start()
    kept.keeper.is_wanted.clear()
    kept.stream.fire("disconnected")
    await asyncio.sleep(0)
    assert kept.stream.attempts == 1
    kept.keeper.is_wanted.set()
    await kept.keeper.up()
    assert kept.stream.attempts == 2


async def test_a_quiet_connection_is_pinged_and_a_lost_one_does_not_wait_for_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
    kept = Kept(idle=0.01)
    kept.stream.answer = kept.keeper.went_up
    kept.start()
    await kept.keeper.up()
    await kept.pinged.wait()
    kept.stream.fire("disconnected")
    await kept.keeper.up()
    assert kept.stream.attempts == 2
    await kept.close()


async def test_its_owner_hears_that_it_gets_on_while_it_tries_and_while_the_connection_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
    kept = Kept(idle=0.01)
    kept.server_answers = True
    kept.stream.answer = lambda: kept.stream.fire("connection_failed", "nobody there")
    kept.start()
    await kept.next_steps()
    kept.stream.answer = kept.keeper.went_up
    await kept.keeper.up()
    attempts = kept.stream.attempts
    await kept.next_steps()
    assert kept.stream.attempts == attempts
    await kept.close()


async def test_a_closed_keeper_makes_no_more_connections(kept: Kept) -> None:
    kept.start()
    await kept.keeper.up()
    await kept.close()
    assert kept.stream.disconnected == 1
    kept.stream.fire("disconnected")
    await asyncio.sleep(0.05)
    assert kept.stream.attempts == 1

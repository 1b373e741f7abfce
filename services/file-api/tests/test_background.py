"""What is done again and again: after an interval that no test waits for, or when woken."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from file_api.background import Background
from tlim_runtime.outages import Unavailable

NEVER, AT_ONCE = timedelta(days=1), timedelta(0)


class Work:
    """Counts its rounds, and raises what it is told to."""

    def __init__(self) -> None:
        self.rounds = 0
        self.fails_with: Exception | None = None
        self._done = asyncio.Condition()

    async def __call__(self) -> None:
        async with self._done:
            self.rounds += 1
            self._done.notify_all()
        if self.fails_with is not None:
            raise self.fails_with

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self._done:
            await self._done.wait_for(is_so)


async def test_it_is_done_at_start_and_again_when_woken() -> None:
    work = Work()
    background = Background("work", work, NEVER)
    await background.start()
    for rounds in (1, 2, 3):
        await work.until(lambda rounds=rounds: work.rounds == rounds)  # type: ignore[misc]
        background.wake()
    await background.stop()


@pytest.mark.parametrize("failure", [Unavailable("S3 is away"), LookupError("a mistake")])
async def test_a_failure_costs_one_round(failure: Exception) -> None:
    work = Work()
    work.fails_with = failure
    background = Background("work", work, AT_ONCE)
    await background.start()
    await work.until(lambda: work.rounds > 2)
    await background.stop()


async def test_it_stops_in_the_middle() -> None:
    started = asyncio.Event()

    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    background = Background("endless", endless, AT_ONCE)
    await background.stop()  # not started: nothing to do
    await background.start()
    await started.wait()
    async with asyncio.timeout(30):
        await background.stop()

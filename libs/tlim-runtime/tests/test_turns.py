"""A few turns at a time for each key, in order; a few wait, and the rest are refused."""

import asyncio

import pytest
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.turns import Turns


class Work:
    """Requests that go on until the test lets them end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.done = asyncio.Event()

    async def request(self, key: str, name: str) -> str:
        async with self.turns.one(key):
            self.begun.append(name)
            await self.done.wait()
        return name

    async def all_have_tried(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_few_run_a_few_wait_and_the_rest_are_refused() -> None:
    work = Work(Turns(2, waiting=3))
    requests = [asyncio.create_task(work.request("alice", str(number))) for number in range(7)]
    await work.all_have_tried()
    assert work.begun == ["0", "1"]
    for refused in requests[5:]:
        with pytest.raises(TooManyRequests):
            await refused
    work.done.set()
    assert await asyncio.gather(*requests[:5]) == ["0", "1", "2", "3", "4"]
    assert work.begun == ["0", "1", "2", "3", "4"]


async def test_one_persons_line_is_not_anothers() -> None:
    work = Work(Turns(1, waiting=0))
    first = asyncio.create_task(work.request("alice", "alice"))
    await work.all_have_tried()
    second = asyncio.create_task(work.request("bob", "bob"))
    await work.all_have_tried()
    assert work.begun == ["alice", "bob"]
    work.done.set()
    await asyncio.gather(first, second)


async def test_who_gives_up_waiting_makes_room_and_nobody_is_remembered() -> None:
    turns = Turns(1, waiting=1)
    work = Work(turns)
    running = asyncio.create_task(work.request("alice", "running"))
    waiting = asyncio.create_task(work.request("alice", "waiting"))
    await work.all_have_tried()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    next_one = asyncio.create_task(work.request("alice", "next"))
    await work.all_have_tried()
    work.done.set()
    await asyncio.gather(running, next_one)
    assert work.begun == ["running", "next"]
    assert turns._lines == {}

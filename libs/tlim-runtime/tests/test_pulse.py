"""Liveness: work that gets on or waits is left alone, work that hangs or has ended asks for a new process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from tlim_devstack.clock import Clock
from tlim_runtime import pulse
from tlim_runtime.background import Background, Repeated, Tasks, running, stuck
from tlim_runtime.health import healthz
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import HUNG_S, beat, held, waiting

NEVER = 86_400


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pulse, "time", clock)
    return clock


async def forever() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def begun(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run `work` in the background, and enter when it has begun."""
    begins = asyncio.Event()

    async def marked() -> None:
        begins.set()
        await work()

    async with asyncio.timeout(30), running(Background("work", marked)):
        await begins.wait()
        yield


async def test_work_that_waits_for_something_to_do_may_wait_for_ever(clock: Clock) -> None:
    async def work() -> None:
        with waiting():
            await forever()

    async with begun(work):
        clock.now += 100 * HUNG_S
        assert stuck() == []
        assert (await healthz()).status_code == 200


@pytest.mark.parametrize("turn", [asyncio.Lock(), asyncio.Semaphore(1)])
async def test_work_waits_for_its_turn_and_does_not_wait_while_it_has_it(
    clock: Clock, turn: asyncio.Lock | asyncio.Semaphore
) -> None:
    has_it = asyncio.Event()

    async def work() -> None:
        async with held(turn):
            has_it.set()
            await forever()

    await turn.acquire()
    async with begun(work):
        clock.now += 2 * HUNG_S
        assert stuck() == []
        turn.release()
        await has_it.wait()
        clock.now += 2 * HUNG_S
        assert stuck() == ["work: it hangs since 600 s"]
    assert not turn.locked()


async def test_work_that_neither_waits_nor_gets_on_is_stuck(clock: Clock) -> None:
    async def work() -> None:
        with waiting():
            pass
        await forever()

    async with begun(work):
        clock.now += HUNG_S - 1
        assert stuck() == []
        clock.now += 2
        assert stuck() == ["work: it hangs since 301 s"]
        answer = await healthz()
    assert answer.status_code == 503
    assert b"work: it hangs" in answer.body
    assert stuck() == []


async def test_a_server_that_answers_in_a_task_of_the_work_is_a_sign_of_life(clock: Clock) -> None:
    asks, answered = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        await asks.wait()
        beat()
        answered.set()
        await forever()

    async def work() -> None:
        beat(first=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())

    async with begun(work):
        clock.now += HUNG_S - 1
        asks.set()
        await answered.wait()
        clock.now += HUNG_S - 1
        assert stuck() == []


async def test_work_waits_as_long_as_one_of_its_tasks_waits(clock: Clock) -> None:
    async def briefly() -> None:
        with waiting():
            await asyncio.sleep(0)

    async def work() -> None:
        with waiting():
            async with asyncio.TaskGroup() as group:
                group.create_task(briefly())
            ended.set()
            await forever()

    ended = asyncio.Event()
    async with begun(work):
        await ended.wait()
        clock.now += 2 * HUNG_S
        assert stuck() == []


async def test_work_that_never_gives_a_sign_is_not_judged(clock: Clock) -> None:
    async def work() -> None:
        beat()
        await forever()

    async with begun(work):
        clock.now += 2 * HUNG_S
        assert stuck() == []


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_round_that_hangs_is_seen_and_the_pause_between_rounds_is_not(clock: Clock, *, at_once: bool) -> None:
    begins = asyncio.Event()

    async def hang() -> None:
        begins.set()
        await forever()

    async with asyncio.timeout(30), running(Repeated("rounds", hang, NEVER, at_once=at_once)) as repeated:
        await asyncio.sleep(0)
        if not at_once:
            clock.now += 2 * HUNG_S
            assert stuck() == []
            repeated.wake()
        await begins.wait()
        clock.now += 2 * HUNG_S
        assert stuck() == ["rounds: it hangs since 600 s"]


async def test_rounds_that_fail_because_a_server_is_away_ask_for_no_new_process(clock: Clock) -> None:
    rounds = 0

    async def fail() -> None:
        nonlocal rounds
        rounds += 1
        clock.now += HUNG_S - 1
        raise Unavailable("away")

    async with asyncio.timeout(30), running(Repeated("rounds", fail, 0)):
        while rounds < 5:
            await asyncio.sleep(0)
            assert stuck() == []


async def test_work_that_was_cancelled_by_a_stranger_has_ended_for_good() -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(begun(forever))
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "work"]
        task.cancel()
        await asyncio.wait([task])
        assert stuck() == ["work: it has ended"]
    assert stuck() == []


async def test_work_that_has_returned_is_over_and_not_stuck() -> None:
    async def work() -> None:
        return

    done = Background("work", work)
    done.start()
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "work"]
    await asyncio.wait([task])
    assert stuck() == []


async def test_work_is_not_judged_by_a_task_that_it_has_left_to_itself(clock: Clock) -> None:
    tasks, is_over = Tasks(), asyncio.Event()

    async def task() -> None:
        with waiting():
            is_over.set()

    async def work() -> None:
        tasks.start(task(), "a task")
        await forever()

    async with begun(work):
        await is_over.wait()
        await tasks.close()
        clock.now += 2 * HUNG_S
        assert stuck() == []

"""What runs beside the requests: a failure is seen by readiness or by the owner, and the work goes on."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import pytest
from structlog.testing import capture_logs
from tlim_devstack.clock import Clock
from tlim_runtime import background
from tlim_runtime.background import Background, Repeated, Tasks, beside, cancellable, running
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable

NEVER, AT_ONCE = 86_400, 0

PAUSE_S, ROUND_S = 900, 60


class Work:
    """Counts its rounds, and raises what it is told to."""

    def __init__(self) -> None:
        self.rounds = 0
        self.fails_with: BaseException | None = None
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


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.fixture(params=[LookupError("a mistake"), asyncio.CancelledError()], ids=["error", "foreign cancellation"])
def death(request: pytest.FixtureRequest) -> BaseException:
    error: BaseException = request.param
    return error


async def test_work_that_dies_makes_readiness_red_and_is_begun_again(
    death: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RESTART_S", 0.01)
    work, reasons = Work(), set()
    work.fails_with = death
    async with running(Background("work", work)) as dying:
        while work.rounds < 3:
            await asyncio.sleep(0)
            try:
                await dying.ping()
            except Unavailable as error:
                reasons.add(str(error))
        work.fails_with = None
        await work.until(lambda: work.rounds > 3)
        await asyncio.sleep(0)
        await dying.ping()
    assert len(reasons) == 1
    assert "work: " in reasons.pop()


async def test_an_owner_who_wants_to_decide_is_told_instead(death: BaseException) -> None:
    work, told = Work(), asyncio.get_running_loop().create_future()
    work.fails_with = death
    async with asyncio.timeout(30), running(Background("work", work, died=told.set_result)):
        assert "work: " in await told
    assert work.rounds == 1


async def test_work_that_returns_is_over_and_no_failure() -> None:
    work = Work()
    done = Background("work", work)
    done.start()
    async with asyncio.timeout(30):
        await done.join()
    await done.ping()
    assert work.rounds == 1


async def test_to_stop_waits_for_the_end() -> None:
    ended = []

    async def slow_to_end() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            ended.append("yes")

    slow = Background("slow", slow_to_end)
    await slow.stop()  # not started: nothing to do
    async with running(slow):
        await asyncio.sleep(0)
        assert ended == []
    assert ended == ["yes"]


async def test_it_is_done_at_start_and_again_when_woken() -> None:
    work = Work()
    async with running(Repeated("work", work, NEVER)) as repeated:
        for rounds in (1, 2, 3):
            await work.until(lambda rounds=rounds: work.rounds == rounds)  # type: ignore[misc]
            repeated.wake()


async def test_the_first_round_can_wait_for_the_interval() -> None:
    work = Work()
    async with running(Repeated("work", work, NEVER, at_once=False)) as repeated:
        await asyncio.sleep(0)
        assert work.rounds == 0
        repeated.wake()
        await work.until(lambda: work.rounds == 1)


@pytest.mark.parametrize("failure", [Unavailable("S3 is away"), LookupError("a mistake")])
async def test_a_failure_costs_one_round(failure: Exception) -> None:
    work = Work()
    work.fails_with = failure
    async with running(Repeated("work", work, AT_ONCE)) as repeated:
        await work.until(lambda: work.rounds > 2)
        await repeated.ping()


async def test_an_outage_is_said_once_and_so_is_its_end() -> None:
    work = Work()
    with capture_logs() as lines:
        async with running(Repeated("work", work, AT_ONCE)):
            for reason in ("the server is away", "the server starts"):
                work.fails_with, seen = Unavailable(reason), work.rounds
                await work.until(partial(lambda seen: work.rounds > seen + 2, seen))
            work.fails_with, seen = None, work.rounds
            await work.until(partial(lambda seen: work.rounds > seen + 2, seen))
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("put off", "the server is away"),
        ("put off", "the server starts"),
        ("goes on", None),
    ]


@pytest.mark.parametrize("failure", [Unavailable("a server is away"), LookupError("a mistake")])
async def test_the_metric_tells_the_time_from_the_first_failure_in_a_row_to_the_last_one(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the time since counts, in which nothing was tried, nor a round that is still at work."""

    def seconds() -> float | None:
        return metrics.registry.get_sample_value("tlim_work_failing_seconds", {"work": "sweep"})

    async def sweep() -> None:
        clock.now += PAUSE_S + ROUND_S
        told.append(seconds())
        if not outcomes:
            over.set()
            await forever()
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    outcomes = [None, failure, None, failure, failure, failure, None]
    metrics, clock, told, over = Metrics(), Clock(), list[float | None](), asyncio.Event()
    monkeypatch.setattr(background, "time", clock)
    async with asyncio.timeout(30), running(Repeated("sweep", sweep, AT_ONCE)):
        await over.wait()
    assert told == [0, 0, 0, 0, 0, PAUSE_S + ROUND_S, 2 * (PAUSE_S + ROUND_S), 0]
    assert seconds() is None


async def test_work_that_has_more_to_do_is_done_again_at_once() -> None:
    left, over = 5, asyncio.Event()

    async def work() -> bool:
        nonlocal left
        left -= 1
        if not left:
            over.set()
        return left > 0

    async with asyncio.timeout(30), running(Repeated("work", work, NEVER)):
        await over.wait()
    assert left == 0


async def test_rounds_go_on_after_a_foreign_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RESTART_S", 0)
    work = Work()
    work.fails_with = asyncio.CancelledError()
    async with running(Repeated("work", work, AT_ONCE)):
        await work.until(lambda: work.rounds > 2)


async def test_work_that_loses_its_cancellation_is_stopped_all_the_same() -> None:
    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await forever()

    repeated = Repeated("work", work, NEVER)
    repeated.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await repeated.stop()


async def test_closing_gives_tasks_time_and_then_ends_them() -> None:
    work, tasks = Work(), Tasks()
    finishing, endless = tasks.start(work(), "finishing"), tasks.start(forever(), "endless")
    await tasks.close(grace_s=0.05)
    assert (finishing.cancelled(), endless.cancelled(), work.rounds) == (False, True, 1)
    await tasks.close()  # nothing runs: nothing to do


async def test_a_helper_ends_with_its_block() -> None:
    with pytest.raises(LookupError):
        async with beside(forever()) as helper:
            raise LookupError
    assert helper.cancelled()


async def test_an_answer_that_comes_together_with_a_cancellation_does_not_hide_it() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        return await asyncio.wait_for(answer, 60)

    asking = asyncio.create_task(cancellable(ask()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result("yes")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_the_answer_and_the_failure_of_cancellable_work_are_its_own() -> None:
    async def fail() -> None:
        raise LookupError

    assert await cancellable(asyncio.sleep(0, "yes")) == "yes"
    with pytest.raises(LookupError):
        await cancellable(fail())

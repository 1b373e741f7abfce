"""Batches that wait at the same time are handled together, and each gets its own verdicts."""

import asyncio
from collections.abc import Sequence

import pytest
from message_store.together import Together, Verdicts
from tlim_runtime.consumer import DONE, Incoming, Poison, Verdict
from tlim_runtime.outages import Unavailable


class Bench:
    """Consumers of groups around a handler that works until it is let go on, and fails with `failure`.

    Messages whose name begins with x are poison.
    """

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.failure: Exception | None = None
        self.goes_on = asyncio.Semaphore(0)
        self.together = Together(self._handle, most=5, most_bytes=50)

    async def _handle(self, batch: Sequence[Incoming]) -> Sequence[Verdict]:
        names = [item.data.decode() for item in batch]
        self.begun.put_nowait(" ".join(names))
        await self.goes_on.acquire()
        if self.failure is not None:
            raise self.failure
        return [Poison(name) if name.startswith("x") else DONE for name in names]

    async def consume(self, *batches: str) -> list[asyncio.Task[Verdicts]]:
        """Hand in batches, each with the names of its messages, until all of them wait or are handled."""
        tasks = []
        for names in batches:
            batch = [Incoming("tlim.in.MTT-000.0", name.encode(), 1, 1) for name in names.split()]
            tasks.append(asyncio.create_task(self.together.handle(batch)))
        await asyncio.sleep(0)
        return tasks


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_waits_while_a_batch_is_handled_is_handled_at_once_and_in_its_order(bench: Bench) -> None:
    tasks = await bench.consume("a1 xa2", "b1 b2", "xc1", "d1 d2 d3", "e1")
    for expected in ("a1 xa2", "b1 b2 xc1", "d1 d2 d3 e1"):
        assert await bench.begun.get() == expected
        bench.goes_on.release()
    assert await asyncio.gather(*tasks) == [
        [DONE, Poison("xa2")], [DONE, DONE], [Poison("xc1")], [DONE] * 3, [DONE],
    ]  # fmt: skip


async def test_no_more_bytes_go_together_than_may(bench: Bench) -> None:
    tasks = await bench.consume("first", "a" * 30, "b" * 20, "c" * 60, "d")
    for expected in ("first", f"{'a' * 30} {'b' * 20}", "c" * 60, "d"):
        assert await bench.begun.get() == expected
        bench.goes_on.release()
    await asyncio.gather(*tasks)


async def test_a_batch_with_more_than_goes_together_goes_alone(bench: Bench) -> None:
    tasks = await bench.consume("a b c d e f", "g")
    for expected in ("a b c d e f", "g"):
        assert await bench.begun.get() == expected
        bench.goes_on.release()
    assert await asyncio.gather(*tasks) == [[DONE] * 6, [DONE]]


async def test_a_failure_is_one_of_all_batches_that_were_handled_together(bench: Bench) -> None:
    first = await bench.consume("a")
    assert await bench.begun.get() == "a"
    others = await bench.consume("b", "c")
    bench.goes_on.release()
    await asyncio.gather(*first)
    assert await bench.begun.get() == "b c"
    bench.failure = ValueError("a mistake")
    bench.goes_on.release()
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["a mistake"] * 2


async def test_a_consumer_that_is_stopped_while_it_handles_gives_the_batches_of_others_up(bench: Bench) -> None:
    first, second, third = await bench.consume("a", "b", "c")
    bench.goes_on.release()
    assert [await bench.begun.get(), await bench.begun.get()] == ["a", "b c"]
    second.cancel()
    with pytest.raises(Unavailable):
        await third
    assert (await first, second.cancelled()) == ([DONE], True)
    (fourth,) = await bench.consume("d")
    bench.goes_on.release()
    assert await fourth == [DONE]


async def test_a_batch_whose_consumer_is_stopped_while_it_waits_is_not_handled(bench: Bench) -> None:
    (first,) = await bench.consume("a")
    assert await bench.begun.get() == "a"
    second, third = await bench.consume("b", "c")
    second.cancel()
    await asyncio.wait([second])
    bench.goes_on.release()
    bench.goes_on.release()
    assert (await first, await third) == ([DONE], [DONE])
    assert await bench.begun.get() == "c"

import asyncio

import pytest
from file_api.pace import TransferPace


class Transfer:
    """A side that moves `size` bytes after `seconds`, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pace = TransferPace(100, 30, lambda: self.now)

    async def moves(self, size: int, seconds: float) -> None:
        async def step() -> int:
            self.now += seconds
            return size

        await self.pace.wait_for(step(), lambda moved: moved)


async def test_a_byte_now_and_then_is_too_slow_once_the_patience_is_over() -> None:
    transfer = Transfer()
    await transfer.moves(1, 20)
    with pytest.raises(TimeoutError):
        await transfer.moves(1, 20)


async def test_the_least_rate_is_enough_for_ever() -> None:
    transfer = Transfer()
    for _ in range(50):
        await transfer.moves(1000, 10)


async def test_many_bytes_at_the_beginning_buy_no_time_later() -> None:
    transfer = Transfer()
    await transfer.moves(100_000_000, 30)
    await transfer.moves(1, 20)
    with pytest.raises(TimeoutError):
        await transfer.moves(1, 20)


async def test_time_in_which_nobody_waits_for_the_other_side_does_not_count() -> None:
    transfer = Transfer()
    for _ in range(5):
        await transfer.moves(1, 1)
        transfer.now += 100


async def test_silence_ends_with_the_patience() -> None:
    with pytest.raises(TimeoutError):
        await TransferPace(1, 0.001).wait_for(asyncio.Event().wait(), lambda _: 1)

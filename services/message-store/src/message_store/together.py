"""One transaction for batches that wait at the same time: each group of shards has its own consumer, and few messages.

A transaction costs the same with one message as with hundreds. So what comes to the groups while a transaction is
written goes into the next one together.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from tlim_runtime.consumer import Handler, Incoming, Later, Verdict
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import held

Verdicts = Sequence[Verdict | Later]


class _Waiting(NamedTuple):
    batch: Sequence[Incoming]
    verdicts: asyncio.Future[Verdicts]

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(len(item.data) for item in self.batch)


class Together:
    """Hands whole batches to a handler in their order, as many at once as have at most `most` messages, and bytes."""

    def __init__(self, handle: Handler, most: int, most_bytes: int) -> None:
        self._handle = handle
        self._most = most
        self._most_bytes = most_bytes
        self._turn = asyncio.Lock()
        self._waiting: deque[_Waiting] = deque()

    async def handle(self, batch: Sequence[Incoming]) -> Verdicts:
        """Return the verdicts of a batch; raises what the handler raises, for each of the batches that it had."""
        mine = _Waiting(batch, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        try:
            async with held(self._turn):
                if not mine.verdicts.done():  # then it is the first of those that wait
                    await self._handle_some()
        except BaseException:
            if mine in self._waiting:
                self._waiting.remove(mine)
            raise
        return mine.verdicts.result()

    async def _handle_some(self) -> None:
        taken = [self._waiting.popleft()]
        messages, size = len(taken[0].batch), taken[0].size
        while self._waiting:
            messages, size = messages + len(self._waiting[0].batch), size + self._waiting[0].size
            if messages > self._most or size > self._most_bytes:
                break
            taken.append(self._waiting.popleft())
        try:
            verdicts = await self._handle([item for one in taken for item in one.batch])
        except BaseException as error:
            failure = error if isinstance(error, Exception) else Unavailable("its transaction was given up")
            for one in taken:
                one.verdicts.set_exception(failure)
            taken[0].verdicts.exception()  # it is ours: the exception itself goes on
            raise
        for one in taken:
            one.verdicts.set_result(verdicts[: len(one.batch)])
            verdicts = verdicts[len(one.batch) :]

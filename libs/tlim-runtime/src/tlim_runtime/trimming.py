"""Empties a stream behind its consumer: it refuses what is new when it is full, so what is done has to leave it.

A removed message is removed with its `Nats-Msg-Id`: after a restart the server takes a repetition of it for new, still
inside the duplicate window. That is harmless: handlers are idempotent by a unique constraint, and receivers drop a
repeated msg_id.
"""

import time
from collections import deque
from collections.abc import Callable

from tlim_protocol.streams import ConsumerSpec

from tlim_runtime.background import Repeated
from tlim_runtime.broker import Broker

INTERVAL_S = 10.0
"""What a host stores in that time is far below a stream's 4 GiB, and a look is two small requests."""


class Trimmer:
    """Removes from a stream what its consumer acknowledged at least `spec.keep` ago, but for the newest of that.

    A message counts from the first look at which it was acknowledged, by this process' own clock.
    """

    def __init__(self, broker: Broker, spec: ConsumerSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._spec = spec
        self._clock = clock
        self._floors: deque[tuple[float, int]] = deque()  # when it was seen first, and everything up to it is done
        self._newest = 0
        self._background = Repeated(f"trimming of {spec.stream}", self.trim, INTERVAL_S, at_once=False)

    def start(self) -> None:
        """Begin to trim in the background."""
        self._broker.on_reconnect(self._forget)
        self._background.start()

    async def stop(self) -> None:
        """Stop at once."""
        self._broker.forget_reconnect(self._forget)
        await self._background.stop()

    async def trim(self) -> None:
        """Look how far the consumer is, and remove what is due; raises BrokerUnavailable."""
        info = await self._broker.answered(f"CONSUMER.INFO.{self._spec.stream}.{self._spec.durable}")
        floor = info["ack_floor"]["stream_seq"]
        if floor < self._newest:
            await self._forget()
        if floor > self._newest:
            self._floors.append((self._clock(), floor))
            self._newest = floor
        due_until = self._clock() - self._spec.keep.total_seconds()
        due = [floor for seen_at, floor in self._floors if seen_at <= due_until]
        if due:
            # `seq` itself stays: a stream is never without a newest event, which tells where publishing was
            await self._broker.answered(f"STREAM.PURGE.{self._spec.stream}", seq=due[-1])
            self._floors = deque(one for one in self._floors if one[1] > due[-1])

    async def _forget(self) -> None:
        """Begin anew: a server that lost its streams, or their tails, gives the same numbers to other messages."""
        self._floors.clear()
        self._newest = 0

"""Removes acknowledged messages from a stream. A full stream refuses new messages, so the old ones have to leave it.

A message is removed together with its `Nats-Msg-Id`. After a restart the server takes a repetition of that message for
a new one, even inside the duplicate window. This is harmless: handlers are idempotent by a unique constraint, and
receivers drop a repeated msg_id.
"""

import time
from collections import deque
from collections.abc import Callable

from tlim_protocol.streams import STREAMS, ConsumerSpec

from tlim_runtime.background import Repeated
from tlim_runtime.broker import Broker

INTERVAL_S = 10.0
"""How often we look. In this time a host stores far less than a stream's 4 GiB. A look costs two small requests."""


class Trimmer:
    """Removes the messages that the consumer acknowledged at least `spec.keep` ago. The newest of them stays.

    The time runs from the first look that found the message acknowledged, on this process's own clock.
    """

    def __init__(self, broker: Broker, spec: ConsumerSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._spec = spec
        self._clock = clock
        self._floors: deque[tuple[float, int]] = deque()  # when first seen, and the last acknowledged sequence then
        self._newest = 0
        self._background = Repeated(f"trimming for {spec.durable}", self.trim, INTERVAL_S, at_once=False)

    def start(self) -> None:
        """Begin to trim in the background."""
        self._broker.on_reconnect(self._forget)
        self._background.start()

    async def stop(self) -> None:
        """Stop at once."""
        self._broker.forget_reconnect(self._forget)
        await self._background.stop()

    async def ping(self) -> None:
        """Raise Unavailable while nothing is trimmed: the stream fills up, and is full one day."""
        await self._background.ping()

    async def trim(self) -> None:
        """Look how far the consumer is, and remove the messages that are due; raises BrokerUnavailable."""
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
            # A purge keeps `seq` itself. So the stream always has a newest event, which shows how far publishing got.
            for mine in _filters(self._spec):
                await self._broker.answered(f"STREAM.PURGE.{self._spec.stream}", seq=due[-1], **mine)
            self._floors = deque(one for one in self._floors if one[1] > due[-1])

    async def _forget(self) -> None:
        """Begin anew. A server that has lost messages gives their sequence numbers to other messages."""
        self._floors.clear()
        self._newest = 0


def _filters(spec: ConsumerSpec) -> list[dict[str, str]]:
    """Return the filters of the purges that remove all of the consumer's messages: a purge takes at most one.

    Whoever reads all of a stream needs none. NATS then drops whole blocks, instead of looking for messages in them.
    """
    (stream,) = (stream for stream in STREAMS if stream.name is spec.stream)
    if set(spec.filter_subjects) == set(stream.subjects):
        return [{}]
    return [{"filter": subject} for subject in spec.filter_subjects]

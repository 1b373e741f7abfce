"""Rate limits that hold across the instances of a service: they tell each other what they have counted.

This is plain NATS, in batches, beside the requests. No request waits for it, and none is refused because NATS is away:
then each instance counts alone. docs/decisions/shared-limits.md says what the limits are worth.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from pydantic import ValidationError
from tlim_protocol.limits import LimitCounts
from tlim_protocol.subjects import subject_of_limits

from tlim_runtime.background import Repeated
from tlim_runtime.logging import get_logger
from tlim_runtime.measures import LimitMetrics
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from tlim_runtime.throttle import Throttle

logger = get_logger(__name__)

TELL_EVERY_S = 1.0
"""A user who writes at n instances at once has n limits for this long. What is too much is waited for afterwards."""

KEYS_IN_A_MESSAGE = 500
"""Half a megabyte at most, with the longest user ids (1,023 bytes). NATS takes one."""


class LimitsBroker(Protocol):
    """NATS, as far as limits need it (tlim_runtime.broker.Broker)."""

    async def send(self, subject: str, payload: bytes, /) -> None: ...
    async def listen(self, subject: str, heard: Callable[[str, bytes], None], /) -> None: ...


class SharedLimits:
    """Tells the other instances of a service what this one has counted, and counts what they tell.

    `limits` and `at_once` are throttles by the names that they have on the wire. The counts of `at_once` are told when
    they are made, the others every TELL_EVERY_S.
    """

    def __init__(
        self,
        broker: LimitsBroker,
        service: str,
        limits: Mapping[str, Throttle],
        at_once: Mapping[str, Throttle],
        metrics: Metrics,
    ) -> None:
        self._broker = broker
        self._subject = subject_of_limits(service)
        self._me = secrets.token_hex(8)
        self._limits = {**limits, **at_once}
        self._metrics = LimitMetrics(metrics)
        self._telling = Repeated("counts of limits", self.tell, TELL_EVERY_S)
        for throttle in limits.values():
            throttle.share()
        for throttle in at_once.values():
            throttle.share(self._telling.wake)

    async def start(self) -> None:
        """Begin to listen to the others, and to tell them."""
        await self._broker.listen(self._subject, self.hear)
        self._telling.start()

    async def stop(self) -> None:
        """Tell what is left, and stop."""
        await self._telling.stop()
        await self.tell()

    async def tell(self) -> None:
        """Tell the others what was counted since the last time.

        What cannot be told now is never told. After an outage it would count as if it had all come at once.
        """
        for name, throttle in self._limits.items():
            news = list(throttle.news().items())
            for first in range(0, len(news), KEYS_IN_A_MESSAGE):
                part = dict(news[first : first + KEYS_IN_A_MESSAGE])
                counts = LimitCounts(instance=self._me, limit=name, counts=part)
                try:
                    await self._broker.send(self._subject, counts.to_bytes())
                except Unavailable:
                    self._metrics.lost(len(part))
                else:
                    self._metrics.told(len(part))

    def hear(self, subject: str, payload: bytes) -> None:
        """Count what an instance has told; nothing if it was this one."""
        try:
            told = LimitCounts.from_bytes(payload)
        except ValidationError:
            logger.exception("no counts of limits", subject=subject)
            return
        throttle = self._limits.get(told.limit)
        if throttle is not None and told.instance != self._me:  # None: another release has other limits
            throttle.hear(told.counts)
            self._metrics.heard(len(told.counts))


@asynccontextmanager
async def limits_shared(
    broker: LimitsBroker,
    service: str,
    metrics: Metrics,
    *,
    limits: Mapping[str, Throttle],
    at_once: Mapping[str, Throttle] | None = None,
) -> AsyncIterator[None]:
    """Have the limits hold across the instances of the service while entered; see SharedLimits."""
    shared = SharedLimits(broker, service, limits, at_once or {}, metrics)
    await shared.start()
    try:
        yield
    finally:
        await shared.stop()

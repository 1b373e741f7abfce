"""A rate limit: how often each key may do something. One token bucket for each key, in this process's memory.

With shared_limits.py the instances of a service tell each other what they have counted.
"""

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field

from tlim_runtime.errors import TooManyRequests

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_RATE = r"([1-9][0-9]{0,8})/(second|minute|hour|day)"
_SWEEP_ABOVE = 1_024  # keys; later twice the number that the last sweep has left, so that sweeps are rare

_TOLD_PARTS = 50
"""Other instances are told of a key when a fiftieth of its limit was counted. So 3,000 messages are 50 notes, and n
instances keep at most n fiftieths to themselves."""

_MOST_BY_OTHERS = 100_000
"""Keys, about 30 MB. With more of them, a key that only others have counted is not taken in."""

Rate = Annotated[str, Field(pattern=f"^{_RATE}$")]
"""The type of a setting such as `10/minute`."""


class _Bucket:
    """One key's bucket: when it is full again, and what was counted here that other instances do not know yet."""

    __slots__ = ("full_at", "untold")

    def __init__(self, full_at: float) -> None:
        self.full_at = full_at
        self.untold = 0


class Throttle:
    """Lets each key do something as often as `rate` says: first that many at once, then evenly spaced.

    `of_whom` is named in the refusal. `clock` gives seconds. A bucket is the time at which it will be full again (the
    generic cell rate algorithm, ITU-T I.371). Full buckets are forgotten. Each process counts on its own, unless the
    throttle is shared.
    """

    def __init__(self, rate: str, of_whom: str, clock: Callable[[], float] = time.monotonic) -> None:
        matched = re.fullmatch(_RATE, rate)
        if matched is None:
            raise ValueError(f"{rate!r} is not a rate such as 10/minute")
        self._limit = int(matched[1])
        self._period = float(_SECONDS[matched[2]])
        self._spacing = self._period / self._limit
        self._of_whom = of_whom
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._sweep_above = _SWEEP_ABOVE
        self._told_from = math.inf  # not shared: nobody is told
        self._news: dict[str, _Bucket] = {}
        self._tell: Callable[[], None] | None = None

    def hit(self, key: str, count: int = 1) -> None:
        """Count `count` at once. This passes if there is room for one; later hits have to wait for all of them.

        Otherwise raises TooManyRequests with the seconds until the next hit passes, and counts nothing.
        """
        now = self._clock()
        if len(self._buckets) > self._sweep_above:
            self._forget_those_at_rest(now)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(now)
        full_at = bucket.full_at
        if full_at < now:  # noqa: PLR1730 - max() takes longer, and each message comes here three times
            full_at = now
        over = full_at + self._spacing - now - self._period
        if over > self._spacing / 1_000:  # not 0, because sums of fractions are not exact
            raise TooManyRequests(f"this {self._of_whom} asks too often", retry_after=max(1, math.ceil(over)))
        bucket.full_at = full_at + count * self._spacing
        bucket.untold += count
        if bucket.untold >= self._told_from:
            self._is_news(key, bucket)

    def check(self, key: str) -> None:
        """Raise TooManyRequests if `hit` would; counts nothing."""
        self.hit(key, 0)

    def give_back(self, key: str, count: int = 1) -> None:
        """Take back `count` that `hit` has counted."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.full_at -= count * self._spacing
            bucket.untold -= count
            if -bucket.untold >= self._told_from:
                self._is_news(key, bucket)

    def share(self, tell: Callable[[], None] | None = None) -> None:
        """Remember from now on what other instances have to be told; see `news`.

        `tell` is called as soon as there is something, and then everything counted is told, not only fiftieths.
        """
        self._told_from = 1 if tell is not None else max(1, self._limit / _TOLD_PARTS)
        self._tell = tell

    def news(self) -> dict[str, int]:
        """Return what was counted here since others were told, by key, and take it for told."""
        told = {key: bucket.untold for key, bucket in self._news.items() if bucket.untold}
        for bucket in self._news.values():
            bucket.untold = 0
        self._news = {}
        return told

    def hear(self, counts: Mapping[str, int]) -> None:
        """Count what another instance has counted. It has passed there, so it always counts here."""
        now = self._clock()
        if len(self._buckets) > self._sweep_above:
            self._forget_those_at_rest(now)
        for key, count in counts.items():
            bucket = self._buckets.get(key)
            if bucket is None:
                if len(self._buckets) >= _MOST_BY_OTHERS:
                    continue
                bucket = self._buckets[key] = _Bucket(now)
            bucket.full_at = max(bucket.full_at, now) + count * self._spacing

    def _is_news(self, key: str, bucket: _Bucket) -> None:
        self._news[key] = bucket
        if self._tell is not None:
            self._tell()

    def _forget_those_at_rest(self, now: float) -> None:
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.full_at > now}
        self._sweep_above = max(_SWEEP_ABOVE, 2 * len(self._buckets))

"""A rate limit: how often each key may do something. One token bucket for each key, in this process's memory."""

import math
import re
import time
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from tlim_runtime.errors import TooManyRequests

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_RATE = r"([1-9][0-9]{0,8})/(second|minute|hour|day)"
_SWEEP_ABOVE = 1_024  # keys; later twice the number that the last sweep has left, so that sweeps are rare

Rate = Annotated[str, Field(pattern=f"^{_RATE}$")]
"""The type of a setting such as `10/minute`."""


class Throttle:
    """Lets each key do something as often as `rate` says: first that many at once, then evenly spaced.

    `of_whom` is named in the refusal. `clock` gives seconds. A bucket is one number: the time at which it will be full
    again (the generic cell rate algorithm, ITU-T I.371). Full buckets are forgotten. Each process counts on its own.
    """

    def __init__(self, rate: str, of_whom: str, clock: Callable[[], float] = time.monotonic) -> None:
        matched = re.fullmatch(_RATE, rate)
        if matched is None:
            raise ValueError(f"{rate!r} is not a rate such as 10/minute")
        self._period = float(_SECONDS[matched[2]])
        self._spacing = self._period / int(matched[1])
        self._of_whom = of_whom
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._sweep_above = _SWEEP_ABOVE

    def hit(self, key: str, count: int = 1) -> None:
        """Count `count` at once. This passes if there is room for one; later hits have to wait for all of them.

        Otherwise raises TooManyRequests with the seconds until the next hit passes, and counts nothing.
        """
        now = self._clock()
        if len(self._full_at) > self._sweep_above:
            self._forget_those_at_rest(now)
        full_at = max(self._full_at.get(key, now), now)
        over = full_at + self._spacing - now - self._period
        if over > self._spacing / 1_000:  # not 0, because sums of fractions are not exact
            raise TooManyRequests(f"this {self._of_whom} asks too often", retry_after=max(1, math.ceil(over)))
        self._full_at[key] = full_at + count * self._spacing

    def check(self, key: str) -> None:
        """Raise TooManyRequests if `hit` would; counts nothing."""
        self.hit(key, 0)

    def give_back(self, key: str) -> None:
        """Take back one that `hit` has counted."""
        full_at = self._full_at.get(key)
        if full_at is not None:
            self._full_at[key] = full_at - self._spacing

    def _forget_those_at_rest(self, now: float) -> None:
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        self._sweep_above = max(_SWEEP_ABOVE, 2 * len(self._full_at))

"""Token buckets, on a clock that the test turns."""

import pytest
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.throttle import Throttle


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def refused(throttle: Throttle, key: str = "alice") -> int | None:
    """After how many seconds to come back, or None when it was allowed."""
    try:
        throttle.hit(key)
    except TooManyRequests as error:
        return error.retry_after
    return None


def test_so_many_at_once_then_evenly_spaced() -> None:
    clock = Clock()
    throttle = Throttle("6/minute", "user", clock)
    assert [refused(throttle) for _ in range(7)] == [None] * 6 + [10]
    clock.now += 9
    assert refused(throttle) == 1
    clock.now += 1
    assert [refused(throttle), refused(throttle)] == [None, 10]


def test_who_waited_has_the_whole_bucket_again_and_no_more() -> None:
    clock = Clock()
    throttle = Throttle("3/second", "user", clock)
    for _ in range(2):
        assert [refused(throttle) for _ in range(4)] == [None, None, None, 1]
        clock.now += 3_600


def test_a_refused_attempt_costs_nothing() -> None:
    clock = Clock()
    throttle = Throttle("1/minute", "user", clock)
    assert [refused(throttle) for _ in range(100)] == [None] + [60] * 99
    clock.now += 60
    assert refused(throttle) is None


def test_what_was_large_is_waited_for_afterwards() -> None:
    clock = Clock()
    throttle = Throttle("6/minute", "user", clock)
    throttle.hit("alice", 8)
    assert refused(throttle) == 30
    clock.now += 30
    assert [refused(throttle), refused(throttle)] == [None, 10]


@pytest.mark.parametrize("count", [1, 7])
def test_what_is_given_back_does_not_count(count: int) -> None:
    throttle = Throttle("2/minute", "user", Clock())
    for _ in range(5):
        throttle.hit("alice", count)
        throttle.give_back("alice", count)
    assert [refused(throttle) for _ in range(3)] == [None, None, 30]


def test_a_check_counts_nothing() -> None:
    throttle = Throttle("1/minute", "user", Clock())
    for _ in range(5):
        throttle.check("alice")
    throttle.hit("alice")
    with pytest.raises(TooManyRequests):
        throttle.check("alice")


def test_everybody_has_a_bucket_of_his_own() -> None:
    throttle = Throttle("1/day", "user", Clock())
    assert [refused(throttle, "alice"), refused(throttle, "bob"), refused(throttle, "alice")] == [None, None, 86_400]


def test_those_at_rest_are_forgotten() -> None:
    clock = Clock()
    throttle = Throttle("1/second", "user", clock)
    for number in range(10_000):
        throttle.hit(str(number))
        clock.now += 0.01
    assert len(throttle._buckets) < 2_000


@pytest.mark.parametrize("rate", ["", "10", "10/fortnight", "0/minute", "-1/minute", "10 / minute"])
def test_what_is_no_rate_is_refused_at_the_start(rate: str) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        Throttle(rate, "user")

"""What was delivered within the last seconds is delivered again after a lost connection; nothing overtakes it."""

import pytest
from xmpp_bridge.component import ComponentDown
from xmpp_bridge.delivered import KEPT_S, DeliveredLately


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lately(clock: Clock) -> DeliveredLately:
    return DeliveredLately(clock)


def deliver(lately: DeliveredLately, first: int) -> None:
    lately.begin(first)
    lately.check()
    lately.end()


def test_delivery_goes_back_to_the_oldest_batch_that_is_recent(lately: DeliveredLately, clock: Clock) -> None:
    for first in (1, 11, 21):
        deliver(lately, first)
        clock.now += KEPT_S * 0.4
    assert lately.take_back() == 11


def test_after_a_quiet_time_nothing_comes_again(lately: DeliveredLately, clock: Clock) -> None:
    assert lately.take_back() is None
    deliver(lately, 1)
    clock.now += KEPT_S * 2
    assert lately.take_back() is None


def test_a_batch_is_as_old_as_its_end(lately: DeliveredLately, clock: Clock) -> None:
    lately.begin(1)
    clock.now += KEPT_S * 2
    lately.end()
    assert lately.take_back() == 1


def test_a_batch_in_hand_is_not_sent_over_the_next_connection(lately: DeliveredLately) -> None:
    deliver(lately, 1)
    lately.begin(11)
    assert lately.take_back() == 1
    with pytest.raises(ComponentDown):
        lately.check()
    with pytest.raises(ComponentDown):
        lately.end()


def test_a_batch_that_failed_is_one_when_it_comes_again(lately: DeliveredLately, clock: Clock) -> None:
    lately.begin(1)
    deliver(lately, 1)
    clock.now += KEPT_S * 2
    assert lately.take_back() is None


def test_what_came_again_comes_again_after_the_next_loss(lately: DeliveredLately) -> None:
    deliver(lately, 1)
    assert lately.take_back() == 1
    deliver(lately, 1)
    deliver(lately, 11)
    assert lately.take_back() == 1

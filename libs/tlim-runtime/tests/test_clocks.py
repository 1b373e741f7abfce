"""Clocks that differ show, and when something was received is told in one's own time."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.msg import Msg
from tlim_protocol.events import Time
from tlim_protocol.streams import STORE_INBOXES
from tlim_protocol.subjects import Rpc
from tlim_runtime.clocks import EXACT_S, UNCOMPARED_S, ClockComparison, clock_responder
from tlim_runtime.health import Health
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.pull import PullSession

NOW = 1_700_000_000.0


class Other:
    """The broker, and message-store behind it; its clock is `ahead` of ours, and the answer takes `takes` s."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.takes = 0.0
        self.is_up = True
        self.now = NOW

    def clock(self) -> float:
        return self.now

    async def request(self, subject: str, payload: bytes) -> bytes:
        assert subject == Rpc.CLOCK
        if not self.is_up:
            raise BrokerUnavailable("away")
        self.now += self.takes / 2
        answer = await clock_responder(lambda: self.now + self.ahead)(payload)
        self.now += self.takes / 2
        return answer


@pytest.fixture
def other() -> Other:
    return Other()


@pytest.fixture
def comparison(other: Other) -> ClockComparison:
    return ClockComparison(other, other.clock)


@pytest.mark.parametrize(("ahead", "sentence"), [(2.5, "2.5 s behind"), (-90.0, "90.0 s ahead of")])
async def test_a_clock_that_differs_shows_until_it_agrees(
    other: Other, comparison: ClockComparison, ahead: float, sentence: str
) -> None:
    health = Health()
    health.warn("clock", comparison.warning)
    warned = {"clock": f"this clock is {sentence} message-store's"}
    for difference, expected in ((0.0, {}), (ahead, warned), (1.9, {})):
        other.ahead = difference
        await comparison.compare()
        assert health.warnings == expected
    assert await health.check() == {}, "a skewed clock takes nothing down"


async def test_half_of_the_way_is_taken_off_and_a_slow_answer_says_nothing(
    other: Other, comparison: ClockComparison
) -> None:
    other.takes = 0.9
    await comparison.compare()
    assert comparison.warning() is None
    other.takes, other.ahead = 9.0, 5.0
    await comparison.compare()
    assert comparison.warning() is None


async def test_without_an_answer_the_last_comparison_stands(other: Other, comparison: ClockComparison) -> None:
    other.ahead = 5.0
    await comparison.compare()
    other.is_up = False
    with pytest.raises(BrokerUnavailable):
        await comparison.compare()
    assert comparison.warning() is not None


@pytest.mark.parametrize("trouble", ["no answer", "slow answers"])
async def test_clocks_that_could_not_be_compared_for_minutes_do_not_count_as_equal(
    other: Other, comparison: ClockComparison, trouble: str
) -> None:
    other.is_up, other.takes = trouble != "no answer", 2 * EXACT_S
    other.now += UNCOMPARED_S
    with suppress(BrokerUnavailable):
        await comparison.compare()
    other.now += 1
    assert comparison.warning() == "this clock was not compared with message-store's for 5 minutes"
    other.is_up, other.takes = True, 0.0
    await comparison.compare()
    assert comparison.warning() is None


async def test_the_answer_is_the_time_in_milliseconds() -> None:
    assert Time.from_bytes(await clock_responder(lambda: NOW)(b"")) == Time(now=1_700_000_000_000)


class SkewedBroker:
    """A broker whose clock is an hour behind ours; says so in nanoseconds, as NATS does."""

    skew_s = -3600.0

    def new_inbox(self) -> str:
        return "inbox"

    def on_disconnect(self, callback: object) -> None:
        pass

    async def subscribe(self, _: str, callback: Any) -> None:
        self.deliver = callback

    async def answered(self, _: str) -> dict[str, Any]:
        there = datetime.fromtimestamp(time.time() + self.skew_s, UTC)
        return {
            "ack_floor": {"stream_seq": 0},
            "delivered": {"stream_seq": 0},
            "num_pending": 0,
            "num_ack_pending": 0,
            "num_waiting": 0,
            "ts": there.isoformat().replace("+00:00", "789Z"),
        }

    async def api(self, _: str) -> dict[str, Any]:
        return {"reset_seq": 1}

    async def send(self, subject: str, payload: bytes, reply: str = "") -> None:
        pass


@pytest.mark.parametrize("reply", ["$JS.ACK.S.C.1.7.1.{time}.0", "$JS.ACK.hub.A.S.C.1.7.1.{time}.0.token"])
async def test_what_waited_was_received_when_it_came_whatever_the_clock_of_the_broker(reply: str) -> None:
    broker: Any = SkewedBroker()
    session = PullSession(broker, STORE_INBOXES[0], 10)
    await session.open()
    waited = 600.0
    stored = int((time.time() + broker.skew_s - waited) * 1_000_000_000)
    client: Any = None
    await broker.deliver(Msg(client, "tlim.in.x", reply.format(time=stored), b"data"))
    (delivery,) = await session.take()
    age = time.time() - delivery.received_at / 1000
    assert waited - 1 < age < waited + 60

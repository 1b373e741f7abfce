"""Instances that count together, on a clock that the test turns, and a network that can be away."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from tlim_protocol.limits import LimitCounts
from tlim_runtime.errors import TooManyRequests
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.shared_limits import KEYS_IN_A_MESSAGE, SharedLimits
from tlim_runtime.throttle import Throttle


class Network:
    """Core NATS: whoever listens hears everything at once, also what it has sent itself."""

    def __init__(self) -> None:
        self.is_up = True
        self.sent: list[LimitCounts] = []
        self._listeners: list[Callable[[str, bytes], None]] = []

    async def listen(self, _subject: str, heard: Callable[[str, bytes], None]) -> None:
        self._listeners.append(heard)

    async def send(self, subject: str, payload: bytes) -> None:
        if not self.is_up:
            raise BrokerUnavailable("away")
        self.sent.append(LimitCounts.from_bytes(payload))
        for heard in self._listeners:
            heard(subject, payload)


class Instance:
    """One process with one limit."""

    def __init__(self, network: Network, rate: str, clock: Callable[[], float]) -> None:
        self.throttle = Throttle(rate, "user", clock)
        self.metrics = Metrics()
        self.limits = SharedLimits(network, "a-service", {"tries": self.throttle}, {}, self.metrics)
        self._network = network

    async def listen(self) -> None:
        await self._network.listen("", self.limits.hear)

    def passed(self, key: str = "alice", tries: int = 1) -> int:
        """Try so often; return how many were let through."""
        return sum(self._passes(key) for _ in range(tries))

    def _passes(self, key: str) -> bool:
        try:
            self.throttle.hit(key)
        except TooManyRequests:
            return False
        return True


class World:
    """Instances on one network, and their common clock."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.network = Network()

    async def instances(self, count: int, rate: str) -> list[Instance]:
        made = [Instance(self.network, rate, lambda: self.now) for _ in range(count)]
        for one in made:
            await one.listen()
        return made


@pytest.fixture
def world() -> World:
    return World()


def value_of(registry: CollectorRegistry, outcome: str) -> float:
    return registry.get_sample_value("tlim_limit_counts_total", {"outcome": outcome}) or 0.0


async def test_what_was_used_up_at_one_instance_is_used_up_at_the_others(world: World) -> None:
    first, *others = await world.instances(3, "10/minute")
    assert first.passed(tries=20) == 10
    await first.limits.tell()
    assert [other.passed() for other in others] == [0, 0]
    assert others[0].passed("bob") == 1
    assert first.passed() == 0, "an instance does not count its own words once more"
    world.now += 6
    assert [one.passed() for one in (first, *others)] == [1, 1, 1], "each may before it is told of the others"


async def test_over_a_long_time_all_instances_together_let_through_what_one_would(world: World) -> None:
    instances = await world.instances(4, "600/minute")
    passed, seconds = 0, 600
    for _ in range(seconds):
        world.now += 1
        passed += sum(one.passed(tries=50) for one in instances)
        for one in instances:
            await one.limits.tell()
    # ten a second, the full bucket at the beginning at each instance, and what an instance keeps to itself
    assert passed <= 10 * seconds + 4 * (600 + 12)
    assert passed >= 10 * seconds


async def test_a_pace_that_never_fills_a_bucket_is_counted_all_the_same(world: World) -> None:
    instances = await world.instances(4, "600/minute")
    refused = 0
    for _ in range(300):
        world.now += 1
        refused += sum(9 - one.passed(tries=9) for one in instances)  # each alone would let all pass
        for one in instances:
            await one.limits.tell()
    assert refused >= 300 * (36 - 10) - 4 * 612


async def test_little_of_a_limit_is_not_told(world: World) -> None:
    first, other = await world.instances(2, "3000/minute")
    assert first.passed(tries=59) == 59
    await first.limits.tell()
    assert world.network.sent == []
    first.passed()
    await first.limits.tell()
    assert [(one.limit, one.counts) for one in world.network.sent] == [("tries", {"alice": 60})]
    assert other.passed(tries=3_000) == 2_940


async def test_what_is_given_back_is_given_back_everywhere(world: World) -> None:
    first, other = await world.instances(2, "2/hour")
    assert first.passed(tries=2) == 2
    await first.limits.tell()
    first.throttle.give_back("alice")
    await first.limits.tell()
    assert (other.passed(), other.passed()) == (1, 0)


async def test_what_was_given_back_before_it_was_told_is_not_told(world: World) -> None:
    first, _ = await world.instances(2, "2/hour")
    first.passed()
    first.throttle.give_back("alice")
    await first.limits.tell()
    assert world.network.sent == []


async def test_without_nats_each_instance_counts_alone_and_does_not_tell_afterwards(world: World) -> None:
    first, other = await world.instances(2, "10/minute")
    world.network.is_up = False
    for _ in range(10):
        assert first.passed(tries=20) == 10
        await first.limits.tell()
        world.now += 60
    world.network.is_up = True
    await first.limits.tell()
    assert other.passed(tries=20) == 10
    assert value_of(first.metrics.registry, "lost") == 10
    assert value_of(first.metrics.registry, "told") == 0


async def test_many_keys_are_told_in_portions(world: World) -> None:
    first, other = await world.instances(2, "1/day")
    count = 2 * KEYS_IN_A_MESSAGE + 1
    for number in range(count):
        first.passed(f"user{number}")
    await first.limits.tell()
    assert [len(one.counts) for one in world.network.sent] == [KEYS_IN_A_MESSAGE, KEYS_IN_A_MESSAGE, 1]
    assert sum(other.passed(f"user{number}") for number in range(count)) == 0
    assert value_of(first.metrics.registry, "told") == value_of(other.metrics.registry, "heard") == count


async def test_what_others_tell_is_forgotten_when_it_is_over_and_has_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (instance,) = await world.instances(1, "1/second")
    for number in range(20):
        instance.throttle.hear({f"user{number}-{other}": 1 for other in range(500)})
        world.now += 2
    assert len(instance.throttle._buckets) < 2_000
    monkeypatch.setattr("tlim_runtime.throttle._MOST_BY_OTHERS", 3_000)
    instance.throttle.hear({f"many{number}": 1 for number in range(10_000)})
    assert len(instance.throttle._buckets) == 3_000
    assert instance.passed("another") == 1, "what comes here is counted nevertheless"


@pytest.mark.parametrize(
    "payload", [b"", b"{}", LimitCounts(instance="x", limit="of-another-release", counts={"alice": 99}).to_bytes()]
)
async def test_words_that_mean_nothing_here_are_passed_over(world: World, payload: bytes) -> None:
    (instance,) = await world.instances(1, "1/day")
    instance.limits.hear("subject", payload)
    assert instance.passed() == 1


async def test_a_limit_of_guesses_asks_to_be_told_with_each_count() -> None:
    told: list[str] = []
    throttle = Throttle("3000/minute", "user")
    throttle.share(lambda: told.append("now"))
    throttle.check("alice")
    assert told == []
    throttle.hit("alice")
    assert told == ["now"]
    assert throttle.news() == {"alice": 1}
    assert throttle.news() == {}

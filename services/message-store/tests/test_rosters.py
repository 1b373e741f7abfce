"""What is kept of groups stays within its bound, by the memory that it really takes."""

import tracemalloc

import pytest
from message_store.rosters import RosterCache
from message_store.values import Roster


def roster_of(number: int, members: int, letters: str = "user") -> Roster:
    first = 1_000_000 + number * members
    return Roster(1, is_deleted=False, members={f"{letters}-{first + i}": first + i for i in range(members)})


@pytest.mark.parametrize(
    ("groups", "members", "letters"), [(2_000, 2, "user"), (500, 20, "user"), (3, 10_000, "user"), (500, 20, "张伟😀")]
)
def test_its_size_is_the_memory_that_it_takes(groups: int, members: int, letters: str) -> None:
    cache = RosterCache()
    tracemalloc.start()
    try:
        for number in range(groups):
            cache.keep({f"session-{number}": roster_of(number, members, letters)})
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 1.5 < cache.size < taken * 1.5


def test_the_ones_not_used_for_longest_go() -> None:
    one = RosterCache()
    one.keep({"s0": roster_of(0, 2)})
    cache = RosterCache(max_bytes=one.size * 3)
    for number in range(3):
        cache.keep({f"s{number}": roster_of(number, 2)})
    cache.find(["s0"])
    cache.keep({"s3": roster_of(3, 2)})
    assert set(cache.find(["s0", "s1", "s2", "s3"])) == {"s0", "s2", "s3"}


def test_a_roster_that_changes_is_weighed_again_and_what_is_forgotten_weighs_nothing() -> None:
    cache = RosterCache()
    for members in (2, 1_000, 2):
        cache.keep({"s1": roster_of(1, members)})
        alone = RosterCache()
        alone.keep({"s1": roster_of(1, members)})
        assert cache.size == alone.size
    cache.clear()
    assert (cache.size, cache.find(["s1"])) == (0, {})


def test_a_session_that_another_store_has_changed_is_forgotten_and_weighs_nothing() -> None:
    cache, other = RosterCache(), RosterCache()
    other.keep({"s2": roster_of(2, 20)})
    cache.keep({"s1": roster_of(1, 10), "s2": roster_of(2, 20)})
    cache.forget(["s1", "s3"])
    assert (set(cache.find(["s1", "s2"])), cache.size) == ({"s2"}, other.size)

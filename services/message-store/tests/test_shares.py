"""Who takes and gives up which parts of the work, among stores that see the same."""

from collections.abc import Sequence

import pytest
from message_store.shares import UPKEEP, Division
from tlim_protocol.streams import STORE_GROUPS

GROUPS = range(STORE_GROUPS)


def settle(owners: dict[int, int], stores: Sequence[int]) -> int:
    """Let the stores act one after the other until nothing changes; return how many parts changed hands."""
    moved = 0
    while True:
        before = dict(owners)
        for me in stores:
            division = Division(me, stores, dict(owners))
            for group in division.surplus:
                del owners[group]
            for part in division.wanted:
                owners[part] = me
                moved += 1
        if owners == before:
            return moved


@pytest.mark.parametrize("count", range(1, 11))
def test_stores_divide_the_groups_equally_and_one_has_the_upkeep(count: int) -> None:
    owners: dict[int, int] = {}
    stores = [100 - number for number in range(count)]
    settle(owners, stores)
    assert set(owners) == {*GROUPS, UPKEEP}
    shares = [sum(owners[group] == store for group in GROUPS) for store in stores]
    assert max(shares) - min(shares) <= 1


def test_a_store_that_comes_gets_its_share_and_nothing_else_moves() -> None:
    owners: dict[int, int] = {}
    settle(owners, [1])
    assert set(owners.values()) == {1}
    assert settle(owners, [1, 2]) == 4
    assert settle(owners, [1, 2, 3]) == 2
    assert owners[UPKEEP] == 1


def test_what_a_store_had_that_died_goes_to_those_that_have_less_than_their_share() -> None:
    owners: dict[int, int] = {}
    settle(owners, [1, 2, 3])
    left = {part: owner for part, owner in owners.items() if owner != 1}
    settle(left, [2, 3])
    assert [sum(left[group] == store for group in GROUPS) for store in (2, 3)] == [4, 4]
    assert all(left[part] == owner for part, owner in owners.items() if owner != 1)
    assert left[UPKEEP] in {2, 3}


def test_a_store_beyond_the_number_of_groups_has_nothing_and_wants_nothing() -> None:
    owners: dict[int, int] = {}
    stores = range(STORE_GROUPS + 1)
    settle(owners, stores)
    last = Division(STORE_GROUPS, stores, owners)
    assert (last.groups, last.wanted, last.surplus) == ([], [], [])

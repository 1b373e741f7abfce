"""Missing changes are asked for once for all groups of a store, and anew when some may have been lost."""

from collections.abc import Callable

import pytest
from message_store.duty import Preparation
from message_store.errors import DirectoryUnavailable


class Store:
    """Table and stream that somebody may have compared already, and the log of changes."""

    def __init__(self) -> None:
        self.is_certain = False
        self.asked = 0
        self.groups = {0}
        self.answers = True
        self.while_asked: Callable[[], None] = lambda: None
        self.preparation = Preparation(self, self, self.groups)

    async def restore(self) -> None:
        self.is_certain = True

    async def run(self) -> None:
        self.asked += 1
        self.while_asked()
        if not self.answers:
            raise DirectoryUnavailable


async def test_at_a_start_it_is_asked_for_once_for_all_groups() -> None:
    store = Store()
    store.groups |= {1, 2}
    for group in (0, 1, 2, 0):
        await store.preparation.of_a_group(group)
    assert store.asked == 1


async def test_a_group_that_is_taken_later_or_comes_back_is_asked_for() -> None:
    store = Store()
    await store.preparation.of_a_group(0)
    store.groups.add(1)
    await store.preparation.of_a_group(1)
    store.preparation.forget(0)
    await store.preparation.of_a_group(0)
    assert store.asked == 3


async def test_after_an_outage_it_is_asked_for_also_if_others_have_compared_before() -> None:
    store = Store()
    await store.preparation.of_a_group(0)
    store.preparation.doubt()
    store.is_certain = True
    await store.preparation.of_a_group(0)
    assert store.asked == 2


async def test_an_outage_while_it_is_asked_for_counts() -> None:
    store = Store()
    store.while_asked = store.preparation.doubt
    for _ in range(2):
        await store.preparation.of_a_group(0)
    assert store.asked == 2


async def test_what_is_uncertain_without_an_outage_is_asked_for() -> None:
    store = Store()
    await store.preparation.of_a_group(0)
    store.is_certain = False
    await store.preparation.of_a_group(0)
    assert store.asked == 2


async def test_without_an_answer_a_group_goes_on_and_each_round_fails_until_there_is_one() -> None:
    store = Store()
    store.answers = False
    await store.preparation.of_a_group(0)
    for _ in range(2):
        with pytest.raises(DirectoryUnavailable):
            await store.preparation.again()
    store.answers = True
    await store.preparation.again()
    assert store.asked == 4

from contextlib import ExitStack

import pytest
from file_api.running import AllBusy, Running
from tlim_runtime.errors import TooManyRequests


def test_the_last_slots_are_for_people_who_have_none() -> None:
    running = Running("uploads", per_user=8, at_most=10)
    with ExitStack() as held:
        for _ in range(8):
            held.enter_context(running.one("alice"))
        with pytest.raises(TooManyRequests), running.one("alice"):
            pass
        held.enter_context(running.one("bob"))
        with pytest.raises(AllBusy), running.one("bob"):
            pass
        held.enter_context(running.one("carol"))
        with pytest.raises(AllBusy), running.one("dave"):
            pass
    with running.one("dave"):
        pass


def test_one_person_never_has_all_slots_whatever_is_allowed_to_each() -> None:
    running = Running("uploads", per_user=50, at_most=10)
    with ExitStack() as held:
        for _ in range(8):
            held.enter_context(running.one("alice"))
        with pytest.raises(AllBusy), running.one("alice"):
            pass
        held.enter_context(running.one("bob"))

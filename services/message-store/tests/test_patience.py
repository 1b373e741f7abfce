"""Questions whose askers have stopped waiting are dropped."""

import pytest
from message_store.patience import Overdue, PatientTurns


async def test_a_question_that_waits_too_long_is_dropped_and_the_next_has_its_turn() -> None:
    turns = PatientTurns(1, 0.01)
    async with turns.one():
        with pytest.raises(Overdue):
            async with turns.one():
                pytest.fail("it had a turn")
    async with turns.one():
        pass

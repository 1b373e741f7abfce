"""What is missing of session-api's log of changes, and how it is got."""

from datetime import timedelta
from typing import Any

import pytest
from message_store.catch_up import AGAIN_S, CatchUp
from message_store.directory import ServiceDirectory
from message_store.errors import DirectoryUnavailable
from message_store.values import Progress
from tlim_protocol.events import SessionChanges, SessionEvent


class Log:
    """Session-api's log, given out two at a time."""

    def __init__(self, *events: Any) -> None:
        self.events = events
        self.is_away = False
        self.questions: list[int] = []

    async def changes(self, after: int, limit: int) -> SessionChanges:
        assert limit > 0
        if self.is_away:
            raise DirectoryUnavailable
        self.questions.append(after)
        found = [event for event in self.events if event.change > after]
        return SessionChanges(events=found[:2], more=len(found) > 2)


def everything(_: SessionEvent) -> bool:
    return True


async def test_everything_that_is_missing_is_applied_and_told(bench: Any, session: Any) -> None:
    log = Log(session(1, "alice"), session(2, "alice", "bob"), session(3, "bob"))
    catch_up = CatchUp(bench.recorder, log, everything)
    assert await catch_up.is_due()
    await catch_up.run()
    assert [event.recipients for event in bench.stored] == [["alice"], ["alice", "bob"], ["bob", "alice"]]
    assert (log.questions, bench.archive.change, await catch_up.is_due()) == ([0, 2], 3, False)
    await catch_up.run()
    assert (log.questions, len(bench.stored)) == ([0, 2, 3], 3)


async def test_what_came_through_the_stream_is_not_told_again(bench: Any, session: Any) -> None:
    await bench.record(session(2, "alice", "bob"))
    catch_up = CatchUp(bench.recorder, Log(session(1, "alice"), session(2, "alice", "bob")), everything)
    await catch_up.run()
    assert len(bench.stored) == 1
    assert await bench.recorder.applied() == Progress(2)


async def test_a_gap_that_stays_makes_it_due(bench: Any, session: Any) -> None:
    log = Log(session(1, "alice"))
    catch_up = CatchUp(bench.recorder, log, everything)
    await catch_up.run()
    assert not await catch_up.is_due()
    await bench.record(session(1, "bob", session_id="s3", change=3))
    assert not await catch_up.is_due(), "another store may be about to apply it"
    assert await catch_up.is_due()
    assert bench.archive.change == 1


async def test_a_change_of_a_session_that_is_not_ours_is_left_to_its_store(bench: Any, session: Any) -> None:
    """It may wait there behind messages that came before it."""
    log = Log(session(1, "alice", session_id="s1", change=1), session(1, "bob", session_id="s2", change=2))
    catch_up = CatchUp(bench.recorder, log, lambda event: event.session_id == "s2")
    await catch_up.run()
    assert [event.recipients for event in bench.stored] == [["bob"]]
    assert await bench.recorder.applied() == Progress(0, has_gap=True)


async def test_a_gap_of_a_store_that_hangs_is_asked_for_seldom(bench: Any, session: Any) -> None:
    now = 0.0
    log = Log(session(1, "alice", session_id="s1", change=1), session(1, "bob", session_id="s2", change=2))
    catch_up = CatchUp(bench.recorder, log, lambda event: event.session_id == "s2", lambda: now)
    await catch_up.run()
    assert [await catch_up.is_due() for _ in range(3)] == [False] * 3
    now = AGAIN_S
    assert await catch_up.is_due()


async def test_a_change_that_the_table_cannot_hold_is_not_asked_for_for_ever(bench: Any, session: Any) -> None:
    bench.archive.bad.add("s1:1")
    catch_up = CatchUp(bench.recorder, Log(session(1, "alice"), session(2, "alice", "bob")), everything)
    await catch_up.run()
    assert not await catch_up.is_due()
    assert await bench.recorder.applied() == Progress(2)
    assert [event.recipients for event in bench.stored] == [["alice", "bob"]]


async def test_without_session_api_it_stays_due(bench: Any, session: Any) -> None:
    log = Log(session(1, "alice"))
    log.is_away = True
    catch_up = CatchUp(bench.recorder, log, everything)
    with pytest.raises(DirectoryUnavailable):
        await catch_up.run()
    assert await catch_up.is_due()
    log.is_away = False
    await catch_up.run()
    assert not await catch_up.is_due()
    assert len(bench.stored) == 1


class Gibberish:
    """A session-api whose answers nobody can read."""

    async def request(self, *_: object) -> bytes:
        return b"gibberish"


async def test_answers_that_nobody_can_read_fail_each_time(bench: Any) -> None:
    catch_up = CatchUp(bench.recorder, ServiceDirectory(Gibberish(), timedelta(seconds=1)), everything)
    for _ in range(2):
        assert await catch_up.is_due()
        with pytest.raises(DirectoryUnavailable):
            await catch_up.run()

"""What session-api is asked for, and how often: once for many sessions, not again for those that it does not know."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from message_store.directory import ABSENT_S, HUNG_S, ServiceDirectory
from message_store.errors import DirectoryUnavailable
from message_store.values import AnsweredSession
from tlim_protocol.events import SessionEvent, SessionsAnswer, SessionsQuestion
from tlim_protocol.subjects import Rpc
from tlim_runtime.outages import BrokerUnavailable, NoAnswerInTime

MANY = [f"s{number}" for number in range(500)]


class FakeSessionApi:
    """Tells `at_most` sessions in an answer; remembers what it was asked."""

    def __init__(self) -> None:
        self.told: dict[str, SessionEvent] = {}
        self.at_most = 1_000
        self.is_away = False
        self.is_hung = False
        self.questions: list[list[str]] = []
        self.waited_for: list[str] = []

    async def request(self, subject: str, payload: bytes, _timeout_s: float) -> bytes:
        if self.is_away:
            raise BrokerUnavailable("away")
        if self.is_hung:
            self.waited_for.append(subject)
            raise NoAnswerInTime(subject)
        asked = SessionsQuestion.from_bytes(payload).session_ids
        self.questions.append(asked)
        told = [self.told[one] for one in asked if one in self.told]
        if len(told) > self.at_most:
            return SessionsAnswer(sessions=told[: self.at_most], unknown=[]).to_bytes()
        return SessionsAnswer(sessions=told, unknown=[one for one in asked if one not in self.told]).to_bytes()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session_api() -> FakeSessionApi:
    return FakeSessionApi()


@pytest.fixture
def directory(session_api: FakeSessionApi, clock: Clock) -> ServiceDirectory:
    return ServiceDirectory(session_api, timedelta(seconds=1), clock)


async def test_many_sessions_are_one_question(directory: ServiceDirectory, session_api: FakeSessionApi) -> None:
    assert await directory.sessions(MANY) == dict.fromkeys(MANY, AnsweredSession(None))
    assert [len(asked) for asked in session_api.questions] == [500]


async def test_a_session_that_does_not_exist_is_not_asked_for_again_for_seconds(
    directory: ServiceDirectory, session_api: FakeSessionApi, clock: Clock
) -> None:
    await directory.sessions(MANY)
    assert await directory.sessions([*MANY[:10], "new"]) == dict.fromkeys([*MANY[:10], "new"], AnsweredSession(None))
    assert session_api.questions[1:] == [["new"]]
    clock.now += ABSENT_S
    await directory.sessions(["s0"])
    assert session_api.questions[2:] == [["s0"]]


async def test_a_session_that_the_stream_tells_of_is_asked_for_again(
    directory: ServiceDirectory, session_api: FakeSessionApi, session: Callable[..., SessionEvent]
) -> None:
    await directory.sessions(["s0", "s1"])
    session_api.told["s0"] = session(1, session_id="s0")
    directory.heard_of({"s0"})
    assert await directory.sessions(["s0", "s1"]) == {
        "s0": AnsweredSession(session_api.told["s0"]),
        "s1": AnsweredSession(None),
    }


async def test_what_an_answer_leaves_out_is_asked_for_until_all_is_told(
    directory: ServiceDirectory, session_api: FakeSessionApi, session: Callable[..., SessionEvent]
) -> None:
    session_api.told = {one: session(1, session_id=one) for one in MANY[:5]}
    session_api.at_most = 2
    answers = await directory.sessions(MANY[:6])
    assert answers == {one: AnsweredSession(session_api.told.get(one)) for one in MANY[:6]}
    assert [len(asked) for asked in session_api.questions] == [6, 4, 2]


async def test_an_outage_says_nothing_and_is_not_remembered(
    directory: ServiceDirectory, session_api: FakeSessionApi
) -> None:
    session_api.is_away = True
    assert await directory.sessions(["s0"]) == {"s0": None}
    session_api.is_away = False
    assert await directory.sessions(["s0"]) == {"s0": AnsweredSession(None)}


async def test_a_service_that_hangs_is_not_waited_for_again_for_seconds(
    directory: ServiceDirectory, session_api: FakeSessionApi, clock: Clock
) -> None:
    session_api.is_hung = True
    for name in ("s0", "s1", "s2"):
        assert await directory.sessions([name]) == {name: None}
        with pytest.raises(DirectoryUnavailable):
            await directory.known(seen=["alice"], ask=[name])
        assert await directory.files([(name, "alice")]) is None
    assert sorted(session_api.waited_for) == sorted([Rpc.SESSION_GET, Rpc.USER_MEET, Rpc.FILE_CHECK])
    clock.now += HUNG_S
    session_api.is_hung = False
    assert await directory.sessions(["s0"]) == {"s0": AnsweredSession(None)}

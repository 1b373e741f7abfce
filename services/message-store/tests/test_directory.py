"""What session-api is asked for, and how often: once for many sessions, not again for those that it does not know."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from message_store.directory import ABSENT_S, AGAIN_BYTES, ServiceDirectory
from message_store.errors import DirectoryUnavailable
from message_store.values import AnsweredSession, FileFacts
from tlim_protocol.events import (
    FilesAnswer,
    FilesQuestion,
    SessionEvent,
    SessionsAnswer,
    SessionsQuestion,
    UserMeet,
    UsersKnown,
)
from tlim_protocol.subjects import Rpc
from tlim_runtime.outages import BrokerUnavailable, NoAnswerInTime

MANY = [f"s{number}" for number in range(500)]


class FakeSessionApi:
    """Tells `at_most` sessions in an answer; remembers what it was asked. Half of it can hang."""

    def __init__(self) -> None:
        self.told: dict[str, SessionEvent] = {}
        self.at_most = 1_000
        self.is_away = False
        self.is_hung = False
        self.hangs_on: set[str] = set()
        self.is_half_hung = False
        self.asked = 0
        self.questions: list[list[str]] = []
        self.waited_for: list[str] = []
        self.payloads: list[bytes] = []

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        self.payloads.append(payload)
        if self.is_away:
            raise BrokerUnavailable("away")
        if self.is_hung or subject in self.hangs_on:
            self.waited_for.append(subject)
            raise NoAnswerInTime(subject)
        self.asked += 1
        if self.is_half_hung and self.asked % 2:
            await asyncio.sleep(timeout_s)
            raise NoAnswerInTime(subject)
        if subject == Rpc.USER_MEET:
            return UsersKnown(known=UserMeet.from_bytes(payload).ask).to_bytes()
        if subject == Rpc.FILE_CHECK:
            return FilesAnswer(existing=[], owned=[]).to_bytes()
        asked = SessionsQuestion.from_bytes(payload).session_ids
        self.questions.append(asked)
        told = [self.told[one] for one in asked if one in self.told]
        if len(told) > self.at_most:
            return SessionsAnswer(sessions=told[: self.at_most], unknown=[]).to_bytes()
        return SessionsAnswer(sessions=told, unknown=[one for one in asked if one not in self.told]).to_bytes()


class TwoAtOnce:
    """Two copies end in the same moment: the first one without an answer, the second one with it."""

    def __init__(self, both: asyncio.Event) -> None:
        self._both, self._asked = both, 0

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        assert timeout_s
        self._asked += 1
        if self._asked == 1:
            await self._both.wait()
            raise NoAnswerInTime(subject)
        self._both.set()
        await asyncio.sleep(0)
        return UsersKnown(known=UserMeet.from_bytes(payload).ask).to_bytes()


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


async def test_no_batch_asks_a_service_again_before_it_has_answered_by_itself(
    directory: ServiceDirectory, session_api: FakeSessionApi
) -> None:
    async def refused(name: str) -> None:
        assert await directory.sessions([name]) == {name: None}
        with pytest.raises(DirectoryUnavailable):
            await directory.known(seen=["alice"], ask=[name])
        assert await directory.files([(name, "alice")]) is None

    session_api.is_hung = True
    for name in ("s0", "s1", "s2"):
        await refused(name)
    assert sorted(session_api.waited_for) == sorted([Rpc.SESSION_GET, Rpc.USER_MEET, Rpc.FILE_CHECK])
    with pytest.raises(NoAnswerInTime):
        await directory.ask_hung()
    assert len(session_api.waited_for) == 6
    session_api.is_hung = False
    await refused("s3")
    await directory.ask_hung()
    assert await directory.sessions(["s0"]) == {"s0": AnsweredSession(None)}
    assert await directory.known(seen=["alice"], ask=["bob"]) == {"bob"}
    assert await directory.files([("f1", "alice")]) == FileFacts(set(), set())


async def test_a_round_fails_while_a_service_hangs_and_those_that_answer_again_are_asked(
    directory: ServiceDirectory, session_api: FakeSessionApi
) -> None:
    session_api.is_hung = True
    assert await directory.sessions(["s0"]) == {"s0": None}
    assert await directory.files([("f1", "alice")]) is None
    session_api.is_hung, session_api.hangs_on = False, {Rpc.SESSION_GET}
    for _ in range(2):
        with pytest.raises(NoAnswerInTime, match=Rpc.SESSION_GET):
            await directory.ask_hung()
        assert await directory.files([("f1", "alice")]) == FileFacts(set(), set())
    session_api.hangs_on.clear()
    await directory.ask_hung()
    assert await directory.sessions(["s0"]) == {"s0": AnsweredSession(None)}


async def test_a_service_that_has_gone_is_asked_again_as_nobody_has_to_wait_for_it(
    directory: ServiceDirectory, session_api: FakeSessionApi
) -> None:
    session_api.is_hung = True
    assert await directory.sessions(["s0"]) == {"s0": None}
    session_api.is_hung, session_api.is_away = False, True
    await directory.ask_hung()
    session_api.is_away = False
    assert await directory.sessions(["s0"]) == {"s0": AnsweredSession(None)}


async def test_a_large_question_is_sent_once(session_api: FakeSessionApi) -> None:
    directory = ServiceDirectory(session_api, timedelta(seconds=0.1))
    session_api.is_half_hung = True
    assert await directory.files([("f" * AGAIN_BYTES, "alice")]) is None
    assert session_api.asked == 1


async def test_an_instance_that_hangs_beside_one_that_answers_refuses_nobody(session_api: FakeSessionApi) -> None:
    directory = ServiceDirectory(session_api, timedelta(seconds=3))
    session_api.is_half_hung = True
    for number in range(3):
        assert await directory.known(seen=["alice"], ask=[f"u{number}"]) == {f"u{number}"}
        session_api.asked = 0


async def test_an_answer_counts_although_an_earlier_copy_has_failed_in_the_same_moment() -> None:
    for _ in range(20):
        both = asyncio.Event()
        directory = ServiceDirectory(TwoAtOnce(both), timedelta(seconds=0.01))
        assert await directory.known(seen=["alice"], ask=["bob"]) == {"bob"}


async def test_a_service_that_hangs_is_asked_about_nothing_once_a_round_and_looks_into_its_tables(
    directory: ServiceDirectory, session_api: FakeSessionApi
) -> None:
    session_api.is_hung = True
    assert await directory.files([("f1", "alice")]) is None
    session_api.payloads.clear()
    with pytest.raises(NoAnswerInTime):
        await directory.ask_hung()
    (payload,) = session_api.payloads
    (ask,) = FilesQuestion.from_bytes(payload).asks
    assert re.fullmatch("[0-9a-f]{32}", ask.file_id), "file-api answers all others without a look"

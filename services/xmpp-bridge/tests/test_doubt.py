"""After a pause of the process, what was in the socket is passed on only if the connection is still there."""

import asyncio
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import pytest
from structlog.testing import capture_logs
from tlim_runtime.outages import Unavailable
from xmpp_bridge.doubt import HUNG_S, MOST_HELD, Doubt


class Process:
    """Hangs as a test says, and answers pings as a test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.taken: list[str] = []
        self.pings: list[asyncio.Future[None]] = []
        self.ended = 0
        self.doubt = Doubt(lambda message: self.taken.append(message.tag), self.ping, self.end, lambda: self.now)

    async def ping(self) -> None:
        self.pings.append(asyncio.get_running_loop().create_future())
        await self.pings[-1]

    def end(self) -> None:
        self.ended += 1

    async def reads(self, *names: str) -> None:
        for name in names:
            self.doubt.take(Element(name))
        for _ in range(3):
            await asyncio.sleep(0)

    async def answered(self, number: int, *, is_there: bool = True) -> None:
        if is_there:
            self.pings[number].set_result(None)
        else:
            self.pings[number].set_exception(Unavailable("the connection was lost"))
        await self.reads()


@pytest.fixture
async def process() -> Process:
    return Process()


async def test_without_a_pause_messages_are_passed_on_at_once(process: Process) -> None:
    await process.reads("one")
    process.now = HUNG_S / 2
    await process.reads("two")
    assert (process.taken, process.pings) == (["one", "two"], [])


async def test_after_a_pause_they_wait_for_an_answer_and_stay_in_order(process: Process) -> None:
    process.now = 2 * HUNG_S
    await process.reads("one", "two")
    assert process.taken == []
    await process.answered(0)
    await process.reads("three")
    assert process.taken == ["one", "two", "three"]


async def test_of_a_connection_that_is_no_more_nothing_is_passed_on(process: Process) -> None:
    process.now = 2 * HUNG_S
    await process.reads("one")
    process.doubt.connection_lost()
    await process.reads("over the next connection")
    await process.answered(0, is_there=False)
    assert process.taken == ["over the next connection"]


async def test_what_is_dropped_is_named_in_the_log(process: Process) -> None:
    process.now = 2 * HUNG_S
    with_msg_id, without = '<body>{"msg_id": "m1"}</body>', "<body>Hello</body>"
    for body in (with_msg_id, without):
        process.doubt.take(
            ET.XML(f"<message><forwarded><message xmlns='jabber:client'>{body}</message></forwarded></message>")
        )
    with capture_logs() as lines:
        process.doubt.connection_lost()
    assert [(line["messages"], line["msg_ids"]) for line in lines] == [(2, ["m1", None])]


async def test_a_body_that_no_parser_can_read_is_dropped_as_any_other(process: Process) -> None:
    process.now = 2 * HUNG_S
    process.doubt.take(ET.XML(f"<message xmlns='jabber:client'><body>{'[' * 100_000}</body></message>"))
    await process.reads()
    process.doubt.connection_lost()
    await process.answered(0, is_there=False)
    await process.reads("over the next connection")
    assert process.taken == ["over the next connection"]


async def test_an_answer_from_before_another_pause_says_nothing(process: Process) -> None:
    process.now = 2 * HUNG_S
    await process.reads("one")
    process.now = 4 * HUNG_S
    await process.reads("two")
    await process.answered(0)
    assert process.taken == []
    await process.answered(1)
    assert process.taken == ["one", "two"]


async def test_no_more_than_a_bounded_number_waits(process: Process) -> None:
    process.now = 2 * HUNG_S
    await process.reads(*["one"] * MOST_HELD)
    assert process.ended == 1


async def test_a_pause_is_in_doubt_until_the_answer_also_before_anybody_has_looked(process: Process) -> None:
    seen = [process.doubt.is_open]
    process.now = 2 * HUNG_S
    seen.append(process.doubt.is_open)
    await process.reads("one")
    seen.append(process.doubt.is_open)
    await process.answered(0)
    assert [*seen, process.doubt.is_open] == [False, True, True, False]
    await process.doubt.stop()
    process.now = 10 * HUNG_S
    assert not process.doubt.is_open

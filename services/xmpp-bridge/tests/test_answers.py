"""The store's decision reaches the bridge that accepted the message, whichever bridge was told of it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_runtime.outages import BrokerUnavailable
from xmpp_bridge.answers import Answers

DEVICE = "ann@im.example/phone"


class Bus:
    """Core NATS: what is sent is received at once, if there is a connection."""

    def __init__(self) -> None:
        self.is_up = True
        self.failed = asyncio.Event()
        self.sent: list[str] = []
        self._listeners: dict[str, Callable[[str, bytes], None]] = {}

    async def listen(self, subject: str, heard: Callable[[str, bytes], None]) -> None:
        self._listeners[subject] = heard

    async def send(self, subject: str, payload: bytes) -> None:
        self.sent.append(subject)
        if not self.is_up:
            self.failed.set()
            raise BrokerUnavailable("no connection")
        self._listeners[subject](subject, payload)


class Bridges:
    """Two bridges, and what each has heard."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.heard: dict[str, asyncio.Queue[OutEvent]] = {"here": asyncio.Queue(), "there": asyncio.Queue()}
        self.here, self.there = (Answers(self.bus, name, heard.put_nowait) for name, heard in self.heard.items())

    async def start(self) -> None:
        await self.here.start()
        await self.there.start()

    async def brought(self) -> OutEvent:
        async with asyncio.timeout(5):
            return await self.heard["there"].get()


@pytest.fixture
async def bridges() -> AsyncIterator[Bridges]:
    bridges = Bridges()
    await bridges.start()
    yield bridges
    await bridges.here.stop()
    await bridges.there.stop()


def stored(msg_id: str = "m", *, via: str | None, reply_to: str = DEVICE, session: str | None = None) -> StoredMessage:
    to = {"msg_to": "bob"} if session is None else {}
    kind = MsgType.TEXT if session is None else MsgType.GROUP_TEXT
    body = [{"text": "hello"} if session is None else {"session_id": session, "text": "hello"}]
    envelope = Envelope(msg_from="ann", msg_id=msg_id, msg_type=kind, body=body, **to)
    return StoredMessage(seq=1, stored_at=1, recipients=["bob"], envelope=envelope, reply_to=reply_to, reach=1, via=via)


def refused(via: str) -> RejectedMessage:
    return RejectedMessage(
        code=ErrorCode.USER_UNKNOWN,
        detail="",
        msg_id="m",
        msg_type=MsgType.TEXT,
        sender="ann",
        reply_to=DEVICE,
        stanza_id="s",
        received_at=1,
        after_seq=0,
        via=via,
    )


@pytest.mark.parametrize("via", ["here", None])
async def test_what_this_bridge_or_nobody_asked_for_stays_here(bridges: Bridges, via: str | None) -> None:
    bridges.here.take(stored(via=via))
    bridges.here.take(stored("b", via="there", reply_to="/request"))  # it goes behind whatever is sent of the first
    await bridges.brought()
    assert (bridges.heard["here"].qsize(), bridges.bus.sent) == (1, ["tlim.answer.there"])


@pytest.mark.parametrize(
    "event", [stored(via="there", reply_to="/request"), stored(via="there", session="s"), refused("there")]
)
async def test_what_another_bridge_waits_for_is_brought_there(bridges: Bridges, event: OutEvent) -> None:
    bridges.here.take(event)
    heard = await bridges.brought()
    assert bridges.heard["here"].empty()
    assert heard.via == "there"
    if isinstance(heard, StoredMessage):
        assert (heard.recipients, heard.reach) == ([], 1), "how many they are is enough"


async def test_what_no_bridge_waits_for_is_not_brought_anywhere(bridges: Bridges) -> None:
    bridges.here.take(stored("a", via="there"))
    bridges.here.take(stored("b", via="there", reply_to="/request"))
    await bridges.brought()
    assert bridges.bus.sent == ["tlim.answer.there"]


async def test_without_nats_an_answer_is_lost_and_the_next_one_is_not(bridges: Bridges) -> None:
    bridges.bus.is_up = False
    with capture_logs() as lines:
        bridges.here.take(stored("a", via="there", reply_to="/a"), f"00-{'4b' * 16}-{'0a' * 8}-01")
        await bridges.bus.failed.wait()
        bridges.bus.is_up = True
        bridges.here.take(stored("b", via="there", reply_to="/b"))
        heard = await bridges.brought()
    assert [(line["msg_id"], line["trace_id"]) for line in lines] == [("a", "4b" * 16)]
    assert heard.reply_to == "/b"

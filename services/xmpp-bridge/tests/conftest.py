"""What tests of the bridge share: its way in between made-up servers, leases in a made-up NATS, a clock that jumps."""

import asyncio
import json
import selectors
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import AcceptedMessage, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import ALL_LEASES
from tlim_runtime.broker import Overtaken, PubAck
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.throttle import Throttle
from tlim_runtime.tracing import Headers
from xmpp_bridge.lanes import Gaps
from xmpp_bridge.pace import SenderPace
from xmpp_bridge.service import MessageIntake
from xmpp_bridge.translate import Accept, BridgeAddresses

DOMAIN = "im.itonglian.com"
FIRST_SEQ = 100


@dataclass
class Published:
    """One publish, to be answered by the test."""

    subject: str
    payload: bytes
    future: asyncio.Future[PubAck]

    @property
    def msg_id(self) -> str:
        return AcceptedMessage.from_bytes(self.payload).envelope.msg_id

    def succeed(self) -> None:
        self.future.set_result(PubAck(stream="TLIM_IN", seq=1))

    def fail(self, error: Exception | None = None) -> None:
        self.future.set_exception(error or BrokerUnavailable("away"))


@dataclass
class FakePublisher:
    published: list[Published] = field(default_factory=list)

    def publish_soon(self, subject: str, payload: bytes, *, headers: Headers) -> asyncio.Future[PubAck]:
        del headers
        future: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        self.published.append(Published(subject, payload, future))
        return future


@dataclass
class FakeDoor:
    sent: list[ET.Element] = field(default_factory=list)
    is_open: bool = True
    is_connected: bool = True
    is_in_doubt: bool = False
    aborted: int = 0

    def abort(self) -> None:
        self.aborted += 1

    def send(self, stanzas: str) -> None:
        if not self.is_connected:
            raise BrokerUnavailable("no connection")
        self.sent.append(ET.XML(stanzas))

    def pause(self) -> None:
        self.is_open = False

    def resume(self) -> None:
        self.is_open = True


class Entrance:
    """The intake with its two sides. At most `limit` messages are in flight.

    A user may send `pace` messages, twice as many receipts, and `size` bytes an hour, to `people` people.
    """

    def __init__(self, limit: int, pace: int, size: int, people: int) -> None:
        self.publisher, self.door = FakePublisher(), FakeDoor()
        self.deactivated: set[str] = set()
        addresses = BridgeAddresses(DOMAIN, f"bridge.{DOMAIN}")
        throttles = (Throttle(f"{rate}/hour", "user") for rate in (pace, 2 * pace, size, people))
        names = ("messages", "receipts", "sizes", "deliveries")
        self.pace = SenderPace(**dict(zip(names, throttles, strict=True)))
        self.intake = MessageIntake(
            addresses,
            self.publisher,
            self.door,
            Metrics(),
            pace=self.pace,
            in_flight_limit=limit,
            accept=Accept.ADDRESSED,
            is_deactivated=self.deactivated.__contains__,
            via="this bridge",
        )

    @property
    def published(self) -> list[Published]:
        """Everything that was published, oldest first."""
        return self.publisher.published

    def take(self, body: str | None, sender: str = f"alice@{DOMAIN}/phone", stanza_id: str = "s1") -> None:
        """Take a stanza with this body."""
        receiver = f"bob@bridge.{DOMAIN}"
        stanza = ET.Element("{jabber:component:accept}message", {"from": sender, "to": receiver, "id": stanza_id})
        if body is not None:
            ET.SubElement(stanza, "{jabber:component:accept}body").text = body
        ET.SubElement(stanza, f"{{{DOMAIN}}}tlim", {"location": "mobile"})
        self.intake.take(stanza)

    def take_text(
        self, number: int = 1, sender: str = "alice", *, address: str | None = None, **changes: object
    ) -> None:
        """Take the message `m<number>` of a user to bob, from the user's phone or from `address`."""
        envelope = {"from": sender, "to": "bob", "msg_id": f"m{number}", "msg_type": MsgType.TEXT}
        body = [{"text": "hello"}]
        self.take(json.dumps({**envelope, "body": body, **changes}), address or f"{sender}@{DOMAIN}/phone")

    def refusals(self) -> list[tuple[str | None, str | None, str | None]]:
        """Return code, msg_id and stanza id of every refusal that was sent, oldest first."""
        found = []
        for stanza in self.door.sent:
            element = stanza.find(f"{{{DOMAIN}}}error")
            assert element is not None
            assert stanza.findtext("body") == element.get("code")
            found.append((element.get("code"), element.get("msg_id"), stanza.get("id")))
        return found


@pytest.fixture
async def entrance(request: pytest.FixtureRequest) -> Entrance:
    """An entrance with the bounds that the test's module names."""
    bounds = {"LIMIT": 1_000, "PACE": 15, "BYTES": 100_000, "PEOPLE": 1_000}
    return Entrance(*(getattr(request.module, name, usual) for name, usual in bounds.items()))


class EverybodyIsThere:
    """A server without our module: the bridge sends everything, and the server keeps it for people who are away."""

    server_keeps = True

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.gaps = Gaps()
        self.gaps.opened(0)

    def is_due(self, user_id: str, seq: int) -> bool:
        raise AssertionError(f"asked whether {user_id} gets {seq}")

    async def noted(self, user_ids: Iterable[str]) -> None:
        pass

    def handed_over(self, seq: int) -> None:
        pass


@pytest.fixture
def everybody() -> EverybodyIsThere:
    return EverybodyIsThere()


@pytest.fixture
def new_everybody() -> type[EverybodyIsThere]:
    return EverybodyIsThere


class JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: the clock jumps to the next thing that is due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and nothing will ever happen"
        self.now += max(timeout, 0)
        return super().select(0)


def jumping_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop in which an hour takes no time."""
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    return loop


@pytest.fixture
def jumping() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine in a time that jumps to the next thing that is due."""

    def run(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=jumping_loop) as runner:
            runner.run(story)

    return run


class Leases:
    """NATS, as leases need it: one message for each subject. `Link` is one bridge's connection to it."""

    def __init__(self) -> None:
        self.newest: dict[str, tuple[int, bytes]] = {}
        self.numbers = count(1)
        self.links: list[Link] = []
        self.bridges: list[Any] = []


class Link:
    """A connection to NATS, that may be cut."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.is_cut = False
        self._heard: Callable[[str, bytes], None] | None = None
        leases.links.append(self)

    def check(self) -> None:
        if self.is_cut:
            raise BrokerUnavailable("no connection to NATS")

    async def listen(self, subject: str, heard: Callable[[str, bytes], None]) -> None:
        assert subject == ALL_LEASES
        self._heard = heard

    async def replace(self, subject: str, payload: bytes, newest: int, timeout_s: float) -> int:
        assert timeout_s > 0
        await self.send(subject, payload)
        if self._leases.newest.get(subject, (0, b""))[0] != newest:
            raise Overtaken(subject)
        self._leases.newest[subject] = next(self._leases.numbers), payload
        return self._leases.newest[subject][0]

    async def api(self, operation: str, **arguments: object) -> dict[str, Any]:
        assert operation.startswith("STREAM.MSG.GET")
        await asyncio.sleep(0.001)
        self.check()
        seq, payload = self._leases.newest.get(str(arguments["last_by_subj"]), (0, b""))
        data = b64encode(payload).decode()
        return {"message": {"seq": seq, "data": data}} if seq else {"error": {"err_code": 10037}}

    async def send(self, subject: str, payload: bytes) -> None:
        await asyncio.sleep(0.001)
        self.check()
        for link in self._leases.links:
            if link._heard is not None and not link.is_cut:
                link._heard(subject, payload)


@pytest.fixture
def leasing() -> SimpleNamespace:
    """A NATS without faults, as leases need it."""
    return SimpleNamespace(Leases=Leases, Link=Link)


def text_envelope(msg_id: str, text: str = "hello", **changes: Any) -> Envelope:
    """A text from alice to bob."""
    fields = {"msg_from": "alice", "msg_to": "bob", "msg_type": MsgType.TEXT, "body": [{"text": text}], **changes}
    return Envelope(msg_id=msg_id, **fields)


@pytest.fixture
def envelope() -> Callable[..., Envelope]:
    return text_envelope


@pytest.fixture
def stored() -> Callable[..., StoredMessage]:
    """Return a function: number → a stored text from alice to bob."""

    def make(number: int = 0, **changes: Any) -> StoredMessage:
        fields = {
            "stored_at": 1_700_000_000_000,
            "recipients": ["bob"],
            "envelope": text_envelope(f"m{number}"),
            **changes,
        }
        return StoredMessage(seq=FIRST_SEQ + number, **fields)

    return make

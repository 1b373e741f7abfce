"""A stanza that makes the XMPP server end the connection is found and put aside; everything else is delivered.

The server here is hand-written: XEP-0114 with a limit on stanzas, as Openfire has it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import SeqsAnswer, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_out
from tlim_runtime.consumer import DONE, Incoming, Later, Poison, Verdict
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.component import Component
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.fence import FencedLine
from xmpp_bridge.lanes import PORTIONS_AT_ONCE
from xmpp_bridge.subscribers import OutboxSubscriber
from xmpp_bridge.translate import MESSAGE, Accept, BridgeAddresses

DOMAIN = "im.itonglian.com"
ADDRESSES = BridgeAddresses(DOMAIN, f"bridge.{DOMAIN}")
LIMIT = 2_000
ENOUGH_CONNECTIONS = 10
"""Five find one culprit, two more the next one; a bridge that comes back for ever makes more."""


class ServerWithLimit:
    """Takes every component; a stanza over LIMIT bytes, or one that `dislikes` names, ends its connection."""

    def __init__(self) -> None:
        self.receivers: list[str] = []
        self.confirmed = 0
        self.connections = 0
        self.dislikes: Callable[[ET.Element], bool] = lambda _: False
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        assert self.connections <= ENOUGH_CONNECTIONS
        with contextlib.suppress(OSError):
            await self._talk(reader, writer)
        writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser: ET.XMLPullParser[ET.Element] = ET.XMLPullParser(("start", "end"))
        depth = 0
        while data := await reader.read(65_536):
            parser.feed(data)
            for event, element in cast("Iterator[tuple[str, ET.Element]]", parser.read_events()):
                depth += 1 if event == "start" else -1
                if event == "start" and depth == 1:
                    streams = "http://etherx.jabber.org/streams"
                    writer.write(
                        f"<stream:stream xmlns='jabber:component:accept' xmlns:stream='{streams}' id='1'>".encode()
                    )
                elif depth == 0:
                    return
                elif event == "end" and depth == 1 and not self._take(element, writer):
                    writer.write(
                        b"<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
                    )
                    return
            await writer.drain()

    def _take(self, stanza: ET.Element, writer: asyncio.StreamWriter) -> bool:
        if len(ET.tostring(stanza)) > LIMIT or self.dislikes(stanza):
            return False
        if stanza.tag.endswith("handshake"):
            writer.write(b"<handshake/>")
        elif stanza.tag.endswith("iq"):
            ping_id, sender = stanza.get("id"), stanza.get("from")
            writer.write(f"<iq type='result' id='{ping_id}' from='{DOMAIN}' to='{sender}'/>".encode())
        elif stanza.tag == MESSAGE and stanza.get("type") == "chat":
            self.receivers.append(str(stanza.get("to")).partition("@")[0])
        elif stanza.tag == MESSAGE:
            self.confirmed += stanza.find(f"{{{DOMAIN}}}stored") is not None
        return True


class NothingRecalled:
    async def request(self, subject: str, payload: bytes) -> bytes:
        assert subject
        assert payload
        return SeqsAnswer(seqs=[]).to_bytes()


class Deliveries:
    """What consumer.py does with a subscriber: a batch comes again until there are verdicts."""

    def __init__(self, component: Component, everybody: Any, culprits: Culprits, consumer: str) -> None:
        self._component = component
        self._outbox = OutboxSubscriber(
            FencedLine(component, lambda: None),
            ADDRESSES,
            Backlog(NothingRecalled()),
            Metrics(),
            accept=Accept.ADDRESSED,
            presence=everybody,
            culprits=culprits,
            consumer=consumer,
            slots=asyncio.Semaphore(PORTIONS_AT_ONCE),
        )

    def go_back(self) -> None:
        self._outbox.connection_lost()

    async def verdicts(self, *messages: StoredMessage) -> list[Verdict | Later]:
        subject = subject_out(MsgType.GROUP_TEXT, "alice")
        batch = [Incoming(subject, message.to_bytes(), message.seq, received_at=0) for message in messages]
        async with asyncio.timeout(30):
            while True:
                await self._component.connected()
                with contextlib.suppress(Unavailable):
                    self._outbox.opened(messages[-1].seq)
                    return list(await self._outbox.handle(batch))


@pytest_asyncio.fixture
async def server() -> AsyncIterator[ServerWithLimit]:
    server = ServerWithLimit()
    yield server
    server.close()


@pytest_asyncio.fixture
async def shards(server: ServerWithLimit, new_everybody: Any) -> AsyncIterator[list[Deliveries]]:
    """Two delivery shards that share a connection."""
    component = Component(ADDRESSES, "secret", "127.0.0.1", await server.start(), timeout=timedelta(seconds=5))
    culprits = Culprits()
    both = [Deliveries(component, new_everybody(), culprits, name) for name in ("xmpp-bridge-0", "xmpp-bridge-1")]

    def lost() -> None:
        for one in both:
            one.go_back()

    component.start(lambda _: None, on_lost=lost)
    yield both
    await component.close()


@pytest.fixture
def deliveries(shards: list[Deliveries]) -> Deliveries:
    return shards[0]


def message(seq: int, *recipients: str, size: int = 10) -> StoredMessage:
    body = [{"session_id": "s-1", "text": "x" * size}]
    envelope = Envelope(msg_from="alice", msg_id=f"m{seq}", msg_type=MsgType.GROUP_TEXT, body=body)
    return StoredMessage(
        seq=seq, stored_at=1, recipients=list(recipients), reply_to=f"alice@{DOMAIN}/x", envelope=envelope
    )


async def test_a_stanza_over_the_servers_limit_is_put_aside_and_its_neighbours_are_delivered(
    deliveries: Deliveries, server: ServerWithLimit
) -> None:
    first, culprit, last = await deliveries.verdicts(
        message(1, "bob"), message(2, "carol", size=LIMIT), message(3, "dave")
    )
    assert (first, last) == (DONE, DONE)
    assert isinstance(culprit, Poison)
    assert "bytes" in culprit.reason
    assert set(server.receivers) == {"bob", "dave"}


async def test_several_culprits_in_one_batch_are_all_found(deliveries: Deliveries, server: ServerWithLimit) -> None:
    batch = [message(seq, f"user{seq}", size=LIMIT if seq in {1, 2} else 10) for seq in range(1, 5)]
    assert [isinstance(verdict, Poison) for verdict in await deliveries.verdicts(*batch)] == [True, True, False, False]
    assert set(server.receivers) == {"user3", "user4"}


async def test_a_message_to_a_big_group_costs_no_more_losses(deliveries: Deliveries, server: ServerWithLimit) -> None:
    members = [f"member{number}" for number in range(100)]
    (verdict,) = await deliveries.verdicts(message(1, *members, size=LIMIT))
    assert isinstance(verdict, Poison)
    assert server.receivers == []
    assert server.confirmed == 1


async def test_what_is_smaller_of_a_message_gets_through(deliveries: Deliveries, server: ServerWithLimit) -> None:
    server.dislikes = lambda stanza: str(stanza.get("to")).startswith("carol@")
    (verdict,) = await deliveries.verdicts(message(1, "bob", "carol", "dave"))
    assert isinstance(verdict, Poison)
    assert set(server.receivers) == {"bob", "dave"}
    assert server.confirmed == 1


async def test_a_culprit_that_comes_once_more_costs_no_connection(
    deliveries: Deliveries, server: ServerWithLimit
) -> None:
    culprit = message(1, "bob", size=LIMIT)
    await deliveries.verdicts(culprit, message(2, "carol"))
    before = server.connections
    again, _ = await deliveries.verdicts(culprit, message(3, "dave"))
    assert isinstance(again, Poison)
    assert server.connections == before


async def test_a_server_that_is_killed_now_and_then_condemns_nobody(
    deliveries: Deliveries, server: ServerWithLimit
) -> None:
    losses = iter([True, True, True, False, True])
    server.dislikes = lambda stanza: stanza.tag == MESSAGE and next(losses, False)
    assert await deliveries.verdicts(message(1, "bob"), message(2, "carol")) == [DONE, DONE]
    assert {"bob", "carol"} <= set(server.receivers)


async def test_an_innocent_message_of_another_shard_is_never_blamed(
    shards: list[Deliveries], server: ServerWithLimit
) -> None:
    """Both shards lose their batches each time. The innocent one is sent again and again beside the culprit."""
    culprit, innocent = message(1, "bob", size=LIMIT), [message(seq, f"user{seq}") for seq in range(2, 40)]
    (found,), others = await asyncio.gather(shards[0].verdicts(culprit), shards[1].verdicts(*innocent))
    assert isinstance(found, Poison)
    assert others == [DONE] * len(innocent)
    assert {f"user{seq}" for seq in range(2, 40)} <= set(server.receivers)


async def test_culprits_in_two_shards_are_both_found(shards: list[Deliveries], server: ServerWithLimit) -> None:
    """They end the connection by turns, so none of them ends it twice in a row."""
    batches = [[message(1, "bob", size=LIMIT), message(3, "carol")], [message(2, "dave", size=LIMIT)]]
    first, second = await asyncio.gather(*(one.verdicts(*batch) for one, batch in zip(shards, batches, strict=True)))
    assert [isinstance(verdict, Poison) for verdict in (*first, *second)] == [True, False, True]
    assert set(server.receivers) == {"carol"}


def test_culprits_that_end_the_connection_by_turns_are_found() -> None:
    culprits = Culprits()
    messages = [Incoming("tlim.out.MTT-000.0", b"x", stream_seq=place, received_at=0) for place in (1, 2)]
    for _ in range(2):
        for name, one in zip("ab", messages, strict=True):
            culprits.suspect(name, one, "<message/>")
    assert all(culprits.is_found(one, "<message/>") for one in messages)


def test_losses_over_other_messages_are_not_added_up() -> None:
    culprits = Culprits()
    culprits.opened("a", 20)
    culprits.note_loss("a", 1, 10)
    culprits.note_passed("a", 10)
    culprits.note_loss("a", 11, 20)
    assert not culprits.are_feared
    culprits.note_loss("a", 5, 15)  # after a loss delivery goes back to what was taken over lately
    assert culprits.are_feared
    culprits.note_passed("a", 15)
    assert culprits.are_feared
    culprits.note_passed("a", 20)
    assert not culprits.are_feared


def test_losses_of_a_shard_that_another_bridge_has_slow_nobody_down() -> None:
    culprits = Culprits()
    culprits.opened("a", 10)
    culprits.note_loss("a", 1, 10)
    culprits.note_loss("a", 1, 10)
    assert culprits.are_feared
    culprits.closed("a")
    assert not culprits.are_feared
    culprits.opened("a", 10)
    assert culprits.are_feared, "a culprit can come back with its shard"


def test_what_another_bridge_has_delivered_slows_nobody_down_here() -> None:
    culprits = Culprits()
    culprits.opened("a", 10)
    culprits.note_loss("a", 1, 10)
    culprits.note_loss("a", 1, 10)
    culprits.closed("a")
    culprits.opened("a", 5)  # a stream that was emptied has other places
    assert culprits.are_feared
    culprits.note_passed("a", 5)
    assert not culprits.are_feared
    culprits.note_loss("a", 1, 10)
    culprits.note_loss("a", 1, 10)
    culprits.closed("a")
    culprits.opened("a", 0)  # nothing of it comes again
    assert not culprits.are_feared

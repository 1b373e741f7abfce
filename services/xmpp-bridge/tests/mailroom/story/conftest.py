"""A bridge in the simulated world: its connection to the XMPP server, its consumers, how it comes and dies."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tlim_protocol.identity import delivery_shard
from tlim_runtime.background import Background
from tlim_runtime.consumer import DONE, Incoming, Later, Verdict
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from xmpp_bridge.attendance import Attendance
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.component import ComponentDown, ComponentLost
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.fence import FencedLine
from xmpp_bridge.lanes import PORTIONS_AT_ONCE
from xmpp_bridge.mailroom import Mailroom
from xmpp_bridge.presences import read_presence
from xmpp_bridge.shards import ShardParts, Shards
from xmpp_bridge.shares import Held
from xmpp_bridge.subscribers import OutboxSubscriber
from xmpp_bridge.translate import Accept, BridgeAddresses

ADDRESSES = BridgeAddresses("im.example", "bridge.im.example")
EPOCH = 1_800_000_000.0


class Line:
    """The component connection of one bridge: in order, late, and lost from time to time."""

    def __init__(self, server: Any, chance: random.Random) -> None:
        self._server = server
        self._chance = chance
        self.is_up = False
        self.sent: asyncio.Queue[ET.Element | int] = asyncio.Queue()
        self.said: asyncio.Queue[ET.Element | int] = asyncio.Queue()
        self._numbers = count(1)
        self._pongs: dict[int, asyncio.Future[None]] = {}
        self.shards: Shards
        self.writes: Callable[[str], None] = lambda _user_id: None  # called with each receiver
        self.work = [Background("to the server", self._to_server), Background("to the bridge", self._to_bridge)]

    def connect(self) -> None:
        self.sent, self.said = asyncio.Queue(), asyncio.Queue()
        self.is_up = True
        self.work = [Background("to the server", self._to_server), Background("to the bridge", self._to_bridge)]
        for work in self.work:
            work.start()
        self._server.connect(self)
        self.shards.went_up()

    def lose(self) -> None:
        if not self.is_up:
            return
        self.is_up = False
        self._server.lines.remove(self)
        self.sent, self.said = asyncio.Queue(), asyncio.Queue()
        self.shards.went_down()
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(ComponentLost("lost"))

    def send(self, stanzas: str) -> None:
        if not self.is_up:
            raise ComponentDown("down")
        for stanza in ET.XML(f"<stanzas>{stanzas}</stanzas>"):
            self.writes(stanza.get("to", "").partition("@")[0])
            self.sent.put_nowait(stanza)

    async def barrier(self) -> None:
        number = next(self._numbers)
        pong = self._pongs[number] = asyncio.get_running_loop().create_future()
        try:
            if not self.is_up:
                raise ComponentDown("down")
            self.sent.put_nowait(number)
            await pong
        finally:
            del self._pongs[number]

    async def _to_server(self) -> None:
        queue = self.sent
        while self.sent is queue:
            item = await queue.get()
            await asyncio.sleep(self._chance.random() / 1_000)
            if self.sent is not queue:
                return
            if isinstance(item, int):
                self.said.put_nowait(item)
            else:
                self._server.take(item)

    async def _to_bridge(self) -> None:
        queue = self.said
        while self.said is queue:
            item = await queue.get()
            await asyncio.sleep(self._chance.random() / 1_000)
            if self.said is not queue:
                return
            if isinstance(item, ET.Element):
                sign = read_presence(item, ADDRESSES)
                assert sign is not None
                self.shards.hear(sign)
            elif item in self._pongs and not self._pongs[item].done():
                self._pongs[item].set_result(None)


class Consumer:
    """A shard's consumer in one bridge, as BatchConsumer is, and what JetStream feeds it with."""

    def __init__(self, stream: Any, link: Any, outbox: OutboxSubscriber, line: FencedLine) -> None:
        self._stream = stream
        self._link = link
        self._outbox = outbox
        self._line = line
        self._first: int | None = None
        self._is_stopping = self._is_open = False
        self._background = Background("consumer", self._consume)

    def go_back(self, first: int | None) -> None:
        self._first = first

    @property
    def going_back(self) -> int | None:
        return self._first

    async def start(self) -> None:
        self._background.start()

    async def stop(self) -> None:
        self._is_stopping = True
        self._stream.news.set()
        await self._background.join()

    async def abort(self) -> None:
        await self._background.stop()

    async def ping(self) -> None:
        """It is always well."""

    async def _consume(self) -> None:
        while not self._is_stopping:
            later: list[tuple[int, asyncio.Future[Verdict]]] = []
            try:
                self._is_open = False
                self._check()
                if self._first is not None:
                    self._stream.go_back(self._first)
                    self._first = None
                self._outbox.opened(self._stream.open(self))
                self._is_open = True
                await self._deliver(later)
            except Unavailable:
                await asyncio.sleep(0.1)
            finally:
                for _, verdict in later:
                    verdict.cancel()

    async def _deliver(self, later: list[tuple[int, asyncio.Future[Verdict]]]) -> None:
        place = self._stream.done
        while later or not self._is_stopping:
            self._check()
            for message in [one for one in later if one[1].done()]:
                assert message[1].result() == DONE
                self._acknowledge(message[0])
                later.remove(message)
            batch = [] if self._is_stopping else self._stream.pieces[place : place + 20]
            if not batch:
                await self._news(0.01 if later else 1)
                continue
            place += len(batch)
            self._stream.delivered = max(self._stream.delivered, batch[-1].seq)
            incoming = [Incoming("tlim.out.x", piece.to_bytes(), piece.seq, received_at=2**60) for piece in batch]
            for one, verdict in zip(incoming, await self._outbox.handle(incoming), strict=True):
                if isinstance(verdict, Later):
                    later.append((one.stream_seq, verdict.verdict))
                else:
                    self._acknowledge(one.stream_seq)

    async def _news(self, within_s: float) -> None:
        self._stream.news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._stream.news.wait()

    def _check(self) -> None:
        self._line.check()
        self._link.check()
        if self._is_open and self._stream.pinned is not self:
            raise Unavailable("another bridge is pinned")

    def _acknowledge(self, place: int) -> None:
        self._check()
        self._stream.acknowledge(place)


class Bridge:
    """A process: its connections, and the shards that it has."""

    def __init__(self, parts: Any, log: Any, server: Any, chance: random.Random, nats: Any) -> None:
        self._bridges: list[Bridge] = nats.bridges
        self.line = Line(server, chance)
        self.link, self._links = parts.Link(nats), nats.links
        self._log, self._server = log, server
        self.line.writes = self._check_shard
        self._attendance = Attendance(asyncio.get_running_loop().time)
        self._slots = asyncio.Semaphore(PORTIONS_AT_ONCE)
        self.name = f"bridge {chance.random()}"
        clock = asyncio.get_running_loop().time
        self.shards = Shards(self.link, self.name, self._make, self._attendance, Metrics(), clock=clock)
        self.line.shards = self.shards

    def _make(self, held: Held, outdated: Callable[[], None]) -> ShardParts:
        line, clock = FencedLine(self.line, held.check), asyncio.get_running_loop().time
        mailroom = Mailroom(
            line,
            self,
            ADDRESSES,
            Metrics(),
            shard=held.shard,
            attendance=self._attendance,
            slots=self._slots,
            outdated=outdated,
            clock=lambda: EPOCH + clock(),
            monotonic=clock,
        )
        outbox = OutboxSubscriber(
            line,
            ADDRESSES,
            Backlog(self),
            Metrics(),
            accept=Accept.DIVERTED,
            presence=mailroom,
            culprits=Culprits(),
            consumer=str(held.shard),
            slots=self._slots,
        )
        consumer = Consumer(self._log.streams[held.shard], self.link, outbox, line)
        return ShardParts(line, mailroom, outbox, consumer)

    async def request(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> bytes:
        """Ask the store: also over NATS."""
        self.link.check()
        answer: bytes = await self._log.request(subject, payload, timeout_s)
        self.link.check()
        return answer

    def _check_shard(self, user_id: str) -> None:
        helds = [other.shards._leases._book.held.get(delivery_shard(user_id)) for other in self._bridges]
        if any(held is not None and held.is_valid for held in helds if held not in self.shards._leases.held):
            self._server.faults.append(f"{self.name} delivered to {user_id}, who is another bridge's")

    async def start(self) -> None:
        await self.shards.start()
        self.line.connect()

    async def leave(self) -> None:
        await self.shards.stop()
        await self.kill()

    async def kill(self) -> None:
        self.link.is_cut = True
        self._links.remove(self.link)
        await self.shards._leases._loop.stop()
        for shard in list(self.shards._shards.values()):
            await shard.abort()
        await self.shards._tasks.close()
        self.line.lose()


@pytest.fixture
def manned(simulated: SimpleNamespace) -> SimpleNamespace:
    """The parts of the world, with `Bridge`."""
    return SimpleNamespace(**vars(simulated), Bridge=Bridge)

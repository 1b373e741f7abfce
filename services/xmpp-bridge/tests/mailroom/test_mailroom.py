"""Whatever dies, and whenever: every person gets everything that was addressed to them, and each device in order."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_out
from tlim_runtime.background import Background
from tlim_runtime.consumer import DONE, Incoming, Later, Verdict
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from xmpp_bridge import lanes
from xmpp_bridge.awaited import Awaited
from xmpp_bridge.backlog import Backlog
from xmpp_bridge.culprits import Culprits
from xmpp_bridge.mailroom import Mailroom
from xmpp_bridge.subscribers import OutboxSubscriber
from xmpp_bridge.translate import Accept, BridgeAddresses

ADDRESSES = BridgeAddresses("im.example", "bridge.im.example")
EPOCH = 1_800_000_000.0
PEOPLE = ["bob", "cat", "deb", "ida"]  # of one shard
SHARD = 0
CONVERSATIONS = ["s1", "s2", "s3"]
SEEDS = range(4)
STEPS = 120
MOST_DEVICES = 2
READS = 0.7
"""The share of devices that read what has come, after each step."""
PAUSES_S = (0.001, 0.01, 0.1, 1, 30)
LONG_S = 200
RECONNECTED_WITHIN_S = 5
NOTICED_WITHIN_S = 120
"""So long the XMPP server may take to notice that a device has lost its network."""


class Stream:
    """JetStream's side of the consumer, that outlives the process: what is delivered, and what is acknowledged."""

    def __init__(self) -> None:
        self.floor = self.delivered = 0
        self._acknowledged: set[int] = set()

    def acknowledge(self, place: int) -> None:
        self._acknowledged.add(place)
        while self.floor + 1 in self._acknowledged:
            self.floor += 1


class Bridge:
    """A process: the mailroom, and what JetStream would feed it with."""

    def __init__(self, parts: Any, log: Any, server: Any, chance: random.Random, stream: Stream) -> None:
        self.line = parts.Line(server, chance)
        clock = asyncio.get_running_loop().time
        self.mailroom = Mailroom(
            self.line, log, ADDRESSES, Metrics(), shard=SHARD, timeout_s=15, clock=lambda: EPOCH + clock(),
            monotonic=clock,
        )  # fmt: skip
        self.outbox = OutboxSubscriber(
            self.line,
            ADDRESSES,
            Awaited(),
            Backlog(log),
            Metrics(),
            accept=Accept.DIVERTED,
            presence=self.mailroom,
            culprits=Culprits(),
            consumer="xmpp-bridge",
        )
        self.line.mailroom, self.line.outbox = self.mailroom, self.outbox
        self._log = log
        self._stream = stream
        self._chance = chance
        self._consumer = Background("consumer", self._consume)

    def start(self) -> None:
        self.mailroom.start()
        self._consumer.start()
        self.line.connect()

    async def kill(self) -> None:
        await self._consumer.stop()
        await self.mailroom.stop()
        self.line.lose()

    async def _consume(self) -> None:
        while True:
            stream = self._stream
            self.mailroom.unsent.opened(stream.delivered if stream.floor < stream.delivered else 0)
            later: list[tuple[int, asyncio.Future[Verdict]]] = []
            try:
                await self._deliver_from(stream.floor, later)
            except Unavailable:
                await asyncio.sleep(0.1)
            finally:
                for _, verdict in later:
                    verdict.cancel()

    async def _deliver_from(self, place: int, later: list[tuple[int, asyncio.Future[Verdict]]]) -> None:
        while True:
            for waiting in [one for one in later if one[1].done()]:
                assert waiting[1].result() == DONE
                self._stream.acknowledge(waiting[0])
                later.remove(waiting)
            batch = self._log.rows[place : place + self._chance.randint(1, 20)]
            if not batch:
                await asyncio.sleep(0.01)
                continue
            subject = subject_out(MsgType.GROUP_TEXT, PEOPLE[0])
            incoming = [Incoming(subject, row.to_bytes(), row.seq, received_at=2**60) for row in batch]
            place = batch[-1].seq
            self._stream.delivered = max(self._stream.delivered, place)
            for message, verdict in zip(incoming, await self.outbox.handle(incoming), strict=True):
                if isinstance(verdict, Later):
                    later.append((message.stream_seq, verdict.verdict))
                else:
                    self._stream.acknowledge(message.stream_seq)


class Story:
    """A random history, and what must be true at its end."""

    def __init__(self, seed: int, parts: Any) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a history that can be repeated
        self.log, self.server = parts.Log(self.chance), parts.Server(self.chance)
        self._make_bridge = partial(Bridge, parts, self.log, self.server, self.chance, Stream())
        self.bridge: Any = None
        self.got: dict[str, set[int]] = {}  # of the people who were there when all had become well

    async def tell(self, steps: int) -> None:
        self.bridge = self._make_bridge()
        self.bridge.start()
        weights = {
            self.messages: 50,
            self.somebody_comes: 12,
            self.something_happens_to_a_device: 20,
            self.the_connection_breaks: 4,
            self.the_server_dies: 2,
            self.the_bridge_dies: 3,
            self.the_store_goes_or_comes: 3,
        }
        for _ in range(steps):
            await self.chance.choices(list(weights), list(weights.values()))[0]()
            for device in self.server.devices:
                if self.chance.random() < READS:
                    self.server.read(device)
            await asyncio.sleep(self.chance.choice(PAUSES_S) * self.chance.random())

    async def messages(self) -> None:
        for _ in range(self.chance.randint(1, 6)):
            recipients = self.chance.sample(PEOPLE, self.chance.randint(1, len(PEOPLE)))
            self.log.commit(recipients, self.chance.choice(CONVERSATIONS))
            await asyncio.sleep(self.chance.random() / 100)

    async def somebody_comes(self) -> None:
        person = self.chance.choice(PEOPLE)
        if len(self.server.of(person)) < MOST_DEVICES:
            self.server.come(person, resumes=self.chance.random() < 0.5)

    async def something_happens_to_a_device(self) -> None:
        if not self.server.devices:
            return
        device = self.chance.choice(self.server.devices)
        if device.is_stale:
            self.chance.choice([self.server.resume, self.server.give_up])(device)
        elif not device.is_cut:
            self.chance.choice([self.server.leave, self.lose_network])(device)

    def lose_network(self, device: Any) -> None:
        self.server.cut(device)
        self.later(partial(self.server.notice, device), NOTICED_WITHIN_S)

    async def the_connection_breaks(self) -> None:
        self.bridge.line.lose()
        self.later(self.reconnect, RECONNECTED_WITHIN_S)

    async def the_server_dies(self) -> None:
        self.server.die()
        self.later(self.reconnect, RECONNECTED_WITHIN_S)

    async def the_bridge_dies(self) -> None:
        await self.bridge.kill()
        self.bridge = self._make_bridge()
        self.bridge.start()

    async def the_store_goes_or_comes(self) -> None:
        self.log.is_up = not self.log.is_up

    def later(self, what: Callable[[], None], within_s: float) -> None:
        asyncio.get_running_loop().call_later(within_s * self.chance.random(), what)

    def reconnect(self) -> None:
        if not self.bridge.line.is_up:
            self.bridge.line.connect()

    async def end_well(self) -> None:
        """Everything works again; what people who are there have then is noted. Then everybody comes once more."""
        self.log.is_up = True
        await asyncio.sleep(LONG_S)
        self.reconnect()
        await asyncio.sleep(LONG_S)
        for device in self.server.devices:
            self.server.read(device)
        there = {device.user_id for device in self.server.devices if not device.is_stale}
        self.got = {person: set(self.server.got[person]) for person in there}
        for device in list(self.server.devices):
            (self.server.give_up if device.is_stale else self.server.leave)(device)
        await asyncio.sleep(1)
        for person in PEOPLE:
            self.server.come(person, resumes=True)
        await asyncio.sleep(LONG_S)
        for device in self.server.devices:
            self.server.read(device)
        await self.bridge.kill()


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_gets_everything_whatever_dies(simulated: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MANY", 1)  # what goes to two people takes the slow lane
    story = Story(seed, simulated)

    async def tell() -> None:
        await story.tell(STEPS)
        await story.end_well()

    simulated.run(tell())
    for person in PEOPLE:
        addressed = [row.seq for row in story.log.rows if person in row.recipients]
        assert story.got.get(person, set(addressed)) == set(addressed), "a device that stayed lacks something"
        assert sorted(set(story.server.got[person])) == addressed

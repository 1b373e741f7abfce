"""Bridges, and a NATS that delays and loses messages: no two ever have one shard; in quiet times each has its share.

Whatever a bridge sends or is sent waits while its process is paused. So does an answer, and a renewal that began before
the pause reaches the stream after it. The clocks of the bridges run unequally.
"""

import asyncio
import json
import random
from base64 import b64encode
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from tlim_protocol.identity import DELIVERY_SHARDS
from tlim_protocol.leases import Lease
from tlim_runtime.background import Tasks
from tlim_runtime.broker import Overtaken
from tlim_runtime.outages import BrokerUnavailable
from xmpp_bridge.leases import Leases
from xmpp_bridge.shares import Held

SEEDS = range(4)
STEPS = 60
QUIET_S = 15.0
"""In quiet times each shard has an owner within this time: the old lease has to lapse, and a few looks follow."""

Heard = Callable[[str, bytes], None]


class Nats:
    """The server: one message for each subject, and who listens."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.is_up = True
        self.newest: dict[str, tuple[int, bytes]] = {}
        self._numbers = count(1)
        self.listeners: list[Line] = []

    def replace(self, subject: str, payload: bytes, newest: int) -> int:
        for line in self.listeners:  # also what the stream does not take is heard
            line.bring(subject, payload)
        if self.newest.get(subject, (0, b""))[0] != newest:
            raise Overtaken(subject)
        self.newest[subject] = next(self._numbers), payload
        return self.newest[subject][0]


class Line:
    """The connection of one bridge to NATS."""

    def __init__(self, nats: Nats, losses: float) -> None:
        self._nats = nats
        self._losses = losses
        self._tasks = Tasks()
        self._heard: Heard | None = None
        self._inbox: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.pause_s = 0.0
        """For so long the process is paused when it has written the next lease, before it hears of its success."""
        self.runs = asyncio.Event()
        self.runs.set()
        nats.listeners.append(self)
        self._tasks.start(self._read(), "inbox")

    async def close(self) -> None:
        self._nats.listeners.remove(self)
        await self._tasks.close()

    async def listen(self, subject: str, heard: Heard) -> None:
        assert subject == "tlim.lease.>"
        self._heard = heard

    def bring(self, subject: str, payload: bytes) -> None:
        if self._nats.is_up and self._nats.chance.random() >= self._losses:
            self._inbox.put_nowait((subject, payload))

    async def _read(self) -> None:
        while True:
            subject, payload = await self._inbox.get()
            await self._travel()
            if self._heard is not None:
                self._heard(subject, payload)

    async def _travel(self) -> None:
        is_slow = self._nats.chance.random() < 2 * self._losses
        await asyncio.sleep(self._nats.chance.uniform(0, 1 if is_slow else 0.01))
        await self.runs.wait()

    async def _ask(self, ask: Callable[[], Any], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                await self._travel()
                if not self._nats.is_up or self._nats.chance.random() < self._losses:
                    await asyncio.Event().wait()
                answer: Any = None
                failure: Exception | None = None
                try:
                    answer = ask()
                except Overtaken as overtaken:
                    failure = overtaken
                await self._travel()
                if self._nats.chance.random() < self._losses:
                    await asyncio.Event().wait()
        except TimeoutError:
            await self.runs.wait()
            raise BrokerUnavailable("no answer") from None
        if failure is not None:
            raise failure
        return answer

    async def replace(self, subject: str, payload: bytes, newest: int, timeout_s: float) -> int:
        # The message may be on its way for longer than its sender waits.
        work = self._tasks.start(self._ask(lambda: self._written(subject, payload, newest), 10 * timeout_s), "replace")
        try:
            async with asyncio.timeout(timeout_s):
                seq: int = await asyncio.shield(work)
        except TimeoutError:
            await self.runs.wait()  # while the process is paused, its timers are too
            if not work.done():
                raise BrokerUnavailable("no answer in time") from None
            seq = await work
        return seq

    def _written(self, subject: str, payload: bytes, newest: int) -> int:
        pause_s, self.pause_s = self.pause_s, 0.0
        if pause_s:
            self.runs.clear()
            asyncio.get_running_loop().call_later(pause_s, self.runs.set)
        return self._nats.replace(subject, payload, newest)

    async def api(self, operation: str, **arguments: object) -> dict[str, Any]:
        assert operation == "STREAM.MSG.GET.TLIM_LEASES"
        subject = str(arguments["last_by_subj"])

        def read() -> dict[str, Any]:
            if subject not in self._nats.newest:
                return {"error": {"err_code": 10037}}
            seq, payload = self._nats.newest[subject]
            return {"message": {"seq": seq, "data": b64encode(payload).decode()}}

        answer: dict[str, Any] = await self._ask(read, 5)
        return answer

    async def send(self, subject: str, payload: bytes) -> None:
        await self._travel()
        for line in self._nats.listeners:
            line.bring(subject, payload)


class Bridge:
    """A process. It gives up what it should after a while."""

    def __init__(self, name: str, nats: Nats, losses: float) -> None:
        self.name = name
        self._nats = nats
        self.line = Line(nats, losses)
        speed = 1 + nats.chance.uniform(-0.05, 0.05)
        clock = asyncio.get_running_loop().time
        self.leases = Leases(self.line, name, self, clock=lambda: speed * clock())
        self.owned: dict[int, Held] = {}

    def taken(self, held: Held) -> None:
        assert held.shard not in self.owned
        self.owned[held.shard] = held

    def lost(self, held: Held) -> None:
        self.owned.pop(held.shard, None)

    def give_up(self, held: Held) -> None:
        asyncio.get_running_loop().call_later(self._nats.chance.random(), self._release, held)

    def _release(self, held: Held) -> None:
        if self.owned.get(held.shard) is held:
            del self.owned[held.shard]
            self.leases.release(held)

    async def start(self) -> None:
        await self.leases.start()
        self.leases.join()

    def lose_the_xmpp_server(self) -> None:
        self.leases.leave()
        for held in list(self.owned.values()):
            self._release(held)

    async def kill(self) -> None:
        await self.leases._loop.stop()
        await self.line.close()
        self.owned.clear()


class Story:
    """A random history of a few bridges."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - a history that can be repeated
        self.nats = Nats(self.chance)
        self.losses = self.chance.choice([0, 0.02, 0.2])
        self.bridges: list[Bridge] = []
        self._names = count(1)
        self._tasks = Tasks()

    async def come(self) -> None:
        self.bridges.append(Bridge(f"bridge-{self.chance.random()}-{next(self._names)}", self.nats, self.losses))
        await self.bridges[-1].start()

    async def watch(self) -> None:
        while True:
            for shard in range(DELIVERY_SHARDS):
                owners = [one.name for one in self.bridges if shard in one.owned and one.owned[shard].is_valid]
                assert len(owners) <= 1, (shard, owners)
            await asyncio.sleep(0.002)

    async def step(self) -> None:
        bridge = self.chance.choice(self.bridges)
        match self.chance.randrange(8):
            case 0 if len(self.bridges) < 5:
                await self.come()
            case 1 if len(self.bridges) > 2:
                self.bridges.remove(bridge)
                await bridge.kill()
            case 2 if len(self.bridges) > 2:
                self.bridges.remove(bridge)
                bridge.lose_the_xmpp_server()
                await bridge.leases.stop()
                await bridge.line.close()
            case 3:
                bridge.line.pause_s = self.chance.uniform(0, 6)
            case 4:
                self.nats.is_up = False
                asyncio.get_running_loop().call_later(self.chance.uniform(0, 4), self._mend)
            case 5:
                bridge.lose_the_xmpp_server()
                asyncio.get_running_loop().call_later(self.chance.uniform(0, 3), bridge.leases.join)
            case _:
                pass
        await asyncio.sleep(self.chance.uniform(0, 3))

    def _mend(self) -> None:
        self.nats.is_up = True

    async def tell(self) -> None:
        for _ in range(self.chance.randint(3, 5)):
            await self.come()
        watch = self._tasks.start(self.watch(), "watch")
        for _ in range(STEPS):
            await self.step()
            assert not watch.done(), watch.exception()
        await asyncio.sleep(10)
        for bridge in self.bridges:
            bridge.line._losses = 0
        await asyncio.sleep(QUIET_S)
        assert not watch.done(), watch.exception()
        counts = sorted(len(bridge.owned) for bridge in self.bridges)
        assert sum(counts) == DELIVERY_SHARDS
        assert counts[-1] - counts[0] <= 1
        assert all(held.is_valid for bridge in self.bridges for held in bridge.owned.values())
        for bridge in self.bridges:
            await bridge.kill()
        await self._tasks.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_bridges_ever_have_one_shard_and_in_quiet_times_each_has_its_share(seed: int, jumping: Any) -> None:
    async def story() -> None:
        await Story(seed).tell()

    jumping(story())


def test_the_only_bridge_takes_all_shards_with_its_first_look(jumping: Any) -> None:
    async def story() -> None:
        nats = Nats(random.Random(1))  # noqa: S311
        bridge = Bridge("only", nats, losses=0)
        await bridge.start()
        await asyncio.sleep(0.3)
        assert len(bridge.owned) == DELIVERY_SHARDS
        await bridge.kill()

    jumping(story())


def test_what_a_killed_bridge_had_is_taken_when_its_leases_have_lapsed(jumping: Any) -> None:
    async def story() -> None:
        nats = Nats(random.Random(1))  # noqa: S311
        killed, other = Bridge("killed", nats, losses=0), Bridge("other", nats, losses=0)
        await killed.start()
        await asyncio.sleep(1)
        await killed.kill()
        await other.start()
        await asyncio.sleep(1.5)
        assert not other.owned
        await asyncio.sleep(1)
        assert len(other.owned) == DELIVERY_SHARDS
        await other.kill()

    jumping(story())


def test_a_lease_whose_acknowledgement_was_lost_is_kept(jumping: Any) -> None:
    async def story() -> None:
        nats = Nats(random.Random(1))  # noqa: S311
        bridge = Bridge("only", nats, losses=0)
        await bridge.start()
        await asyncio.sleep(1)
        (held, *_) = bridge.owned.values()
        subject = f"tlim.lease.shard.{held.shard}"
        seq, payload = nats.newest[subject]
        ours = Lease(**{**json.loads(payload), "number": 9_999})
        nats.newest[subject] = seq + 1_000, ours.to_bytes()
        await asyncio.sleep(2)
        assert held.is_valid
        assert bridge.owned[held.shard] is held
        await bridge.kill()

    jumping(story())

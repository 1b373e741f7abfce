"""Whatever dies, and whenever: every person gets everything that was addressed to them, and each device in order."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from xmpp_bridge import fence, lanes

SEEDS = range(4)
STEPS = 80
PEOPLE = ["ann", "bob", "cem", "han", "ian"]
"""ann and han are in one shard, and so are cem and ian."""
CONVERSATIONS = ["s1", "s2", "s3"]
READS = 0.7
"""The share of devices that read what has come, after each step."""
PAUSES_S = (0.001, 0.01, 0.1, 1, 30)
LONG_S = 200
RECONNECTED_WITHIN_S = 5
CUT_OFF_WITHIN_S = 10
MOST_BRIDGES = 3
NOTICED_WITHIN_S = 120
"""So long the XMPP server may take to notice that a device has lost its network."""


class Story:
    """A random history, and what must be true at its end."""

    def __init__(self, parts: Any, seed: int, most_devices: int = 2) -> None:
        self.run, self.people, self.most_devices = parts.run, PEOPLE, most_devices
        self.chance = random.Random(seed)  # noqa: S311 - a history that can be repeated
        self.log, self.server = parts.Log(self.chance), parts.Server(self.chance)
        nats = parts.Leases()
        self.bridges: list[Any] = nats.bridges
        self._make_bridge = partial(parts.Bridge, parts, self.log, self.server, self.chance, nats)
        self.got: dict[str, set[int]] = {}  # of the people who were there when all had become well

    async def tell(self, steps: int) -> None:
        await self.a_bridge_comes()
        weights = {
            self.messages: 50,
            self.somebody_comes: 12,
            self.something_happens_to_a_device: 20,
            self.a_connection_breaks: 4,
            self.the_server_dies: 2,
            self.a_bridge_comes: 4,
            self.a_bridge_leaves: 2,
            self.a_bridge_dies: 3,
            self.a_bridge_is_cut_off: 3,
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
        if len(self.server.of(person)) < self.most_devices:
            self.server.come(person, resumes=self.chance.random() < 0.5)

    async def something_happens_to_a_device(self) -> None:
        if not self.server.devices:
            return
        device = self.chance.choice(self.server.devices)
        if device.is_stale:
            self.chance.choice([self.server.resume, self.server.give_up])(device)
        elif device.is_hidden:
            self.chance.choice([self.server.leave, self.server.show, self.server.show])(device)
        elif not device.is_cut:
            self.chance.choice([self.server.leave, self.lose_network, self.server.hide])(device)

    def lose_network(self, device: Any) -> None:
        self.server.cut(device)
        self.later(partial(self.server.notice, device), NOTICED_WITHIN_S)

    async def a_connection_breaks(self) -> None:
        bridge = self.chance.choice(self.bridges)
        bridge.line.lose()
        self.later(partial(self.reconnect, bridge), RECONNECTED_WITHIN_S)

    async def the_server_dies(self) -> None:
        self.server.die()
        for bridge in self.bridges:
            self.later(partial(self.reconnect, bridge), RECONNECTED_WITHIN_S)

    async def a_bridge_comes(self) -> None:
        if len(self.bridges) < MOST_BRIDGES:
            self.bridges.append(self._make_bridge())
            await self.bridges[-1].start()

    async def bob_comes(self) -> tuple[Any, Any]:
        """Return the first bridge, and the device of bob, who has caught up."""
        await self.a_bridge_comes()
        self.server.come("bob", resumes=False)
        await asyncio.sleep(5)
        (bridge,), (device,) = self.bridges, self.server.devices
        return bridge, device

    async def a_bridge_leaves(self) -> None:
        await self.without_one_bridge(lambda bridge: bridge.leave())

    async def a_bridge_dies(self) -> None:
        await self.without_one_bridge(lambda bridge: bridge.kill())

    async def without_one_bridge(self, end: Callable[[Any], Awaitable[None]]) -> None:
        bridge = self.chance.choice(self.bridges)
        self.bridges.remove(bridge)
        await end(bridge)
        if not self.bridges:
            await self.a_bridge_comes()

    async def a_bridge_is_cut_off(self) -> None:
        """It has no connection to NATS for a while."""
        link = self.chance.choice(self.bridges).link
        link.is_cut = True
        self.later(lambda: setattr(link, "is_cut", False), CUT_OFF_WITHIN_S)

    async def the_store_goes_or_comes(self) -> None:
        self.log.is_up = not self.log.is_up

    def later(self, what: Callable[[], None], within_s: float) -> None:
        asyncio.get_running_loop().call_later(within_s * self.chance.random(), what)

    def reconnect(self, bridge: Any) -> None:
        if bridge in self.bridges and not bridge.line.is_up:
            bridge.line.connect()

    def is_in_order(self, device: Any) -> bool:
        """Whether the first arrivals of each conversation rise, but for what was routed again from another session."""
        highest: dict[str, int] = {}
        for seq in dict.fromkeys(device.got):
            conversation = self.log.rows[seq - 1].envelope.conversation_id
            if seq < highest.get(conversation, 0) and (device.user_id, seq) not in self.server.returned:
                return False
            highest[conversation] = max(seq, highest.get(conversation, 0))
        return True

    async def end_well(self) -> None:
        """Everything works again; what people who are there have then is noted. Then everybody comes once more."""
        self.log.is_up = True
        await asyncio.sleep(LONG_S)
        for bridge in self.bridges:
            self.reconnect(bridge)
        await asyncio.sleep(LONG_S)
        for device in self.server.devices:
            self.server.read(device)
        there = {device.user_id for device in self.server.devices if not device.is_stale and not device.is_hidden}
        self.got = {person: set(self.server.got[person]) for person in there}
        for device in list(self.server.devices):
            (self.server.give_up if device.is_stale else self.server.leave)(device)
        await asyncio.sleep(1)
        for person in PEOPLE:
            self.server.come(person, resumes=True)
        await asyncio.sleep(LONG_S)
        for device in self.server.devices:
            self.server.read(device)
        for bridge in self.bridges:
            await bridge.kill()


@pytest.fixture
def story_of(manned: Any) -> Callable[..., Story]:
    """Return a function: a seed, and how many devices a person has at most → a history that has not begun."""
    return partial(Story, manned)


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_gets_everything_whatever_dies(story_of: Any, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "WRITE_CHARACTERS", 500)
    monkeypatch.setattr(lanes, "FEW", 1)  # what goes to two people takes the slow lane
    monkeypatch.setattr(lanes, "MANY", 1 + seed % 3)
    story = story_of(seed, most_devices=1 + seed % 2)

    async def tell() -> None:
        await story.tell(STEPS)
        await story.end_well()

    story.run(tell())
    assert story.server.faults == []
    for person in story.people:
        addressed = [row.seq for row in story.log.rows if person in row.recipients]
        assert story.got.get(person, set(addressed)) == set(addressed), "a device that stayed lacks something"
        assert sorted(set(story.server.got[person])) == addressed
    if story.most_devices == 1:  # beside another device, what that one had not confirmed comes late
        assert [device for device in story.server.ever if not story.is_in_order(device)] == []


def test_a_server_without_our_module_gets_what_it_may_have_lost_again(story_of: Any) -> None:
    story = story_of(1)
    story.server.has_module = False

    async def tell() -> None:
        await story.a_bridge_comes()
        story.server.come("bob", resumes=False)
        for _ in range(5):
            story.log.commit(["bob", "ann"], "s")
        await asyncio.sleep(5)
        (bridge,), (device,) = story.bridges, story.server.devices
        story.server.read(device)
        assert device.got == [1, 2, 3, 4, 5]
        bridge.line.lose()
        await asyncio.sleep(5)
        bridge.line.connect()
        await asyncio.sleep(5)
        story.server.read(device)
        assert device.got == [1, 2, 3, 4, 5] * 2
        await bridge.kill()

    story.run(tell())


def test_what_was_left_out_for_a_hidden_session_comes_although_the_bridge_died_before_it_could_note_that(
    story_of: Any,
) -> None:
    story = story_of(1)

    async def tell() -> None:
        bridge, device = await story.bob_comes()
        story.log.takes_notes = False
        story.server.hide(device)
        await asyncio.sleep(1)
        story.log.commit(["bob"], "s")
        await asyncio.sleep(1)
        story.server.show(device)
        await asyncio.sleep(1)
        await story.a_bridge_comes()
        await asyncio.sleep(1)
        story.bridges.remove(bridge)
        await bridge.kill()
        story.log.takes_notes = True
        await asyncio.sleep(10)
        story.server.read(device)
        assert device.got == [1]
        await story.bridges[-1].kill()

    story.run(tell())


def test_what_reached_nobody_comes_although_the_bridge_died_before_it_could_note_that(story_of: Any) -> None:
    story = story_of(1)

    async def tell() -> None:
        bridge, device = await story.bob_comes()
        story.log.takes_notes = False
        device.is_hidden = True  # and the bridge does not know yet
        story.log.commit(["bob"], "s")
        await asyncio.sleep(1)
        assert story.server.missed == 1
        device.is_hidden = False
        story.bridges.remove(bridge)
        await bridge.kill()
        story.log.takes_notes = True
        await story.a_bridge_comes()
        await asyncio.sleep(10)
        story.server.read(device)
        assert device.got == [1]
        await story.bridges[-1].kill()

    story.run(tell())


def test_a_bridge_that_leaves_ends_a_catch_up_that_it_has_begun_and_nothing_comes_twice(story_of: Any) -> None:
    story = story_of(1)

    story.log.losses = 0

    async def tell() -> None:
        await story.a_bridge_comes()
        await asyncio.sleep(5)
        for _ in range(100):
            story.log.commit(["bob"], "s")
        story.server.come("bob", resumes=False)
        (device,) = story.server.devices
        await asyncio.sleep(0.1)
        assert 0 < len(device.flight) < 100
        (bridge,) = story.bridges
        await story.a_bridge_comes()
        await bridge.leave()
        await asyncio.sleep(5)
        story.server.read(device)
        assert device.got == list(range(1, 101))
        await story.bridges[-1].kill()

    story.run(tell())

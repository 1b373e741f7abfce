"""The messages of a session keep their order while bridges come and go."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import pytest
from tlim_devstack.ejabberd import Ejabberd
from tlim_devstack.prosody import Prosody
from tlim_devstack.severable import Severable
from tlim_devstack.xmpp_servers import COMPONENT, DOMAIN, XmppSettings
from tlim_protocol.stanzas import TLIM_NS
from xmpp_bridge.component import Component
from xmpp_bridge.translate import BridgeAddresses

NAMES = (COMPONENT, f"second.{COMPONENT}", f"third.{COMPONENT}")


class ThreeBridgesProsody(Prosody):
    """One with a component for each of three bridges."""

    def __init__(self, settings: XmppSettings) -> None:
        super().__init__(settings, components=NAMES)


pytestmark = pytest.mark.parametrize(
    "xmpp_server",
    [Ejabberd, ThreeBridgesProsody],
    indirect=True,
    ids=lambda kind: kind.package,
    scope="session",
)


def names(scene: Any) -> tuple[str, ...]:
    """Return what three bridges are called: ejabberd has several connections of one component."""
    return NAMES if scene.server.software.package == "prosody" else (COMPONENT,) * 3


async def bridge_of(device: Any, bridges: list[Any], text: str) -> tuple[Any, Any]:
    """Send a message. Return the bridge that got it, and the other one."""
    device.write(text)
    await device.settles()
    for bridge in bridges:
        await bridge.barrier()
    (chosen,) = [bridge for bridge in bridges if text in bridge.diverted]
    (other,) = [bridge for bridge in bridges if bridge is not chosen]
    return chosen, other


async def two_bridges(scene: Any) -> list[Any]:
    first, second, _ = names(scene)
    return [await scene.listener(first), await scene.listener(second)]


async def session_that_waits(scene: Any, user: str) -> tuple[Any, Any, Any]:
    """Return a device that waits with "two" for the end of its bridge, that bridge, and another one."""
    bridges = await two_bridges(scene)
    device = await scene.device(user, managed=False)
    leaving, staying = await bridge_of(device, bridges, "one")
    leaving.drain()
    await leaving.barrier()
    device.write("two")
    return device, leaving, staying


async def test_what_a_session_sends_waits_for_the_end_of_its_bridge_and_new_sessions_do_not(scene: Any) -> None:
    user = await scene.person()
    newcomer = await scene.device(user, "newcomer", managed=False)  # a login can take as long as a session waits
    device, leaving, staying = await session_that_waits(scene, user)
    newcomer.write("news")
    await staying.is_sent("news")
    await leaving.barrier()
    assert leaving.diverted + staying.diverted == ["one", "news"]
    leaving.chat(user, "under way")
    await leaving.close()
    await staying.is_sent("two")
    device.write("three")
    await staying.is_sent("three")
    assert staying.diverted == ["news", "two", "three"]


async def test_a_session_keeps_to_its_bridge_when_another_one_comes(scene: Any) -> None:
    first, second, third = names(scene)
    user, bridge = await scene.person(), await scene.listener(first)
    devices = [await scene.device(user, f"device-{number}", managed=False) for number in range(5)]
    for device in devices:
        device.write("one")
        await device.settles()
    others = [await scene.listener(second), await scene.listener(third)]
    for device in devices:
        device.write("two")
        await device.settles()
    for one in (bridge, *others):
        await one.barrier()
    assert [len(one.diverted) for one in (bridge, *others)] == [10, 0, 0]


async def test_without_another_bridge_what_waited_is_refused(scene: Any) -> None:
    user, bridge = await scene.person(), await scene.listener(names(scene)[0])
    device = await scene.device(user, managed=False)
    device.write("one")
    await bridge.is_sent("one")
    bridge.drain()
    await bridge.barrier()
    device.write("two")
    await bridge.close()
    assert (await device.take("message")).get("type") == "error"
    bridge = await scene.listener(names(scene)[0])
    device.write("three")
    await bridge.is_sent("three")


async def test_a_bridge_that_says_that_it_leaves_and_stays_is_waited_for_no_more_after_a_while(scene: Any) -> None:
    device, leaving, staying = await session_that_waits(scene, await scene.person())
    await staying.is_sent("two")
    device.write("three")
    await staying.is_sent("three")
    assert (leaving.diverted, staying.diverted) == (["one"], ["two", "three"])


async def test_nobody_else_can_say_that_a_bridge_leaves(scene: Any) -> None:
    user, bridge = await scene.person(), await scene.listener(names(scene)[0])
    device = await scene.device(user, managed=False)
    device.send(f"<presence type='unavailable' to='{DOMAIN}'><draining xmlns='{TLIM_NS}'/></presence>")
    device.write("one")
    await bridge.is_sent("one")


PEOPLE, DEVICES, AHEAD = 10, 10, 6
SENDERS = PEOPLE * DEVICES


class Taken(NamedTuple):
    """A message in the journal."""

    bridge: "Bridge"
    sender: str
    number: int


class Bridge:
    """The way in of a bridge: the messages that came are under way until the journal has them."""

    def __init__(self, server: Any, name: str, link: Severable, journal: "Journal") -> None:
        addresses = BridgeAddresses(DOMAIN, name)
        self._component = Component(addresses, server.credentials.component, "127.0.0.1", link.port)
        self._link, self._journal = link, journal
        self.under_way: deque[tuple[str, int]] = deque()

    async def join(self) -> None:
        self._component.start(self._take)
        await self._component.connected()
        self._journal.bridges.append(self)

    def _take(self, stanza: Element) -> None:
        sender, number = stanza.findtext(".//{jabber:client}body", "").split()
        self.under_way.append((sender, int(number)))
        self._journal.has_work.set()

    async def drained(self) -> None:
        await self._journal.until(lambda: not self.under_way)

    async def leave(self) -> None:
        await self._component.leave(self.drained)
        await self._component.close()
        await self.drained()
        self._journal.bridges.remove(self)

    async def settles(self) -> None:
        await self._component.barrier()
        await self.drained()

    async def is_killed(self) -> None:
        self._journal.bridges.remove(self)
        await self._link.cut()
        await self.close()

    async def close(self) -> None:
        await self._component.close()


class Journal:
    """Stands for JetStream: takes one message at a time, of a bridge that chance chooses; one bridge is slow."""

    def __init__(self) -> None:
        self.bridges: list[Bridge] = []
        self.entries: list[Taken] = []
        self.has_work = asyncio.Event()
        self.is_over = False
        self._news = asyncio.Event()
        self._chance = random.Random(11)  # noqa: S311 - a test's order, not a secret

    async def keep(self) -> None:
        while True:
            await self.has_work.wait()
            self.has_work.clear()
            while busy := [bridge for bridge in self.bridges if bridge.under_way]:
                # The first of them is slow: what it has is overtaken if another one is given the messages behind it.
                bridge = busy[-1] if self._chance.random() < 0.9 else busy[0]
                self.entries.append(Taken(bridge, *bridge.under_way.popleft()))
                if len(self.entries) % 50 == 0 or not bridge.under_way:
                    self._news.set()
                await asyncio.sleep(0)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def more(self) -> None:
        """Return when all senders together have had some more taken."""
        enough = len(self.entries) + 5 * SENDERS
        await self.until(lambda: len(self.entries) >= enough)

    async def keeps_up(self, number: int) -> None:
        """Return when it is time for the next message of a sender: there has to be some to write until all is over."""
        await self.until(lambda: self.is_over or len(self.entries) >= (number - AHEAD) * SENDERS)

    def end(self) -> None:
        self.is_over = True
        self._news.set()


async def hundred_devices(scene: Any) -> list[Any]:
    people = [await scene.person() for _ in range(PEOPLE)]
    names = [(user, f"device-{number}") for user in people for number in range(DEVICES)]
    return [await scene.device(user, name, managed=False) for user, name in names]


async def write_on(device: Any, sender: str, journal: Journal) -> int:
    """Write one message after another. Return how many."""
    number, last = 0, None
    while number != last:
        await journal.keeps_up(number)
        if journal.is_over and last is None:
            last = number + 10
        device.write(f"{sender} {number}")
        await device.drain()
        number += 1
    return number


async def test_a_hundred_sessions_write_in_order_while_bridges_join_leave_and_are_killed(scene: Any) -> None:
    journal, devices = Journal(), await hundred_devices(scene)

    async def bridge(number: int) -> Bridge:
        link = await stack.enter_async_context(Severable(f"xmpp://127.0.0.1:{scene.server.ports.component}"))
        made = Bridge(scene.server, names(scene)[number], link, journal)
        stack.push_async_callback(made.close)
        await made.join()
        return made

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(journal.keep())
        first, second = await bridge(0), await bridge(1)
        writing = [tasks.create_task(write_on(device, str(number), journal)) for number, device in enumerate(devices)]
        await journal.more()
        third = await bridge(2)
        await journal.more()
        await first.leave()
        await journal.more()
        first = await bridge(0)
        await second.leave()
        await journal.more()
        second = await bridge(1)
        await third.leave()
        left = len(journal.entries)
        third = await bridge(2)
        await journal.until(lambda: len({entry.sender for entry in journal.entries[left:]}) == SENDERS)
        journal.end()
        await first.is_killed()
        written = await asyncio.gather(*writing)
        await asyncio.gather(*(device.settles() for device in devices))
        for one in (second, third):
            await one.settles()
        keeping.cancel()
    assert [device.texts for device in devices] == [[]] * SENDERS, "nothing is refused"
    for number, count in enumerate(written):
        check_order([entry for entry in journal.entries if entry.sender == str(number)], count, killed=first)


def check_order(entries: list[Taken], written: int, *, killed: Bridge) -> None:
    """Check that what came of a sender is in order, and that only messages of the killed bridge are missing."""
    numbers = [entry.number for entry in entries]
    assert numbers == sorted(set(numbers))
    missing = set(range(written)) - set(numbers)
    if missing:
        last = max(entry.number for entry in entries if entry.bridge is killed)
        assert missing == set(range(last + 1, last + 1 + len(missing)))

"""One run: people come and live, faults happen, everybody has gone, comes once more, and reads everything."""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

import httpx
from tlim_client.compose import group_message
from tlim_client.failures import ClientError
from tlim_client.http import HttpClient
from tlim_client.xmpp import XmppClient
from tlim_protocol.registry import MsgType

from tests.torture.book import Book
from tests.torture.crowd import Actor, Group, World
from tests.torture.device import Clock, Device, clock
from tests.torture.faults import Faults
from tests.torture.other_system import OtherSystem
from tests.torture.plan import Cast, Role, Step
from tests.torture.reading import ask_patiently, read_patiently
from tests.torture.system import System

T = TypeVar("T")

WATCHERS = 16
"""People who stay, and who have to hear each other after each step. All shards of delivery have some of them."""

AT_ONCE = 8
"""Accounts that are made, people who log in, and readers, at a time."""

WELL_S = 150
"""The longest time that a message of the watchers may take. A client that was cut off often comes back after 10 s."""

LATE_S = 10
"""Within this time message-store has asked for changes of groups that the broker had lost."""

CATCH_UP_S = 120
"""The longest time that the last login may take, with its catch-up."""

READ_S = 120
"""The longest time that a person's history may take then. Several people read at a time."""

RESTARTS = 3
"""So often the XMPP server is restarted at the end. Whoever is present after that has no connection: that is wrong."""

SETTLED_S = 60
"""How long people may be present after such a restart."""

LOOKS = 3
"""So often in a row nobody may be present. A shard on its way to another bridge is counted by none."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What a run is to be. `settle` is how many seconds lost connections may keep people present at the end."""

    seed: int
    cast: Cast
    steps: Sequence[Step]
    settle: float


class Run:
    """One run on a system."""

    def __init__(self, system: System, asked: Asked, say: Say) -> None:
        self._system, self._asked, self._say = system, asked, say
        self.now: Clock = clock()
        self.book = Book()
        self.faults = Faults(system, self.now, say, self._watch)
        self._passwords: dict[str, str] = {}
        self._groups: dict[str, Group] = {}
        self._watchers: list[Actor] = []
        self._turn = 0

    async def go(self) -> None:
        """Fill the book. The first Ctrl-C ends the faults, and the second one the run."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._enough)
        async with AsyncExitStack() as opened:
            address = self._system.stack.addresses.gateway
            readers = [await opened.enter_async_context(HttpClient(address, timeout=60)) for _ in range(AT_ONCE)]
            actors = await self._people(readers)
            self._say(f"{len(actors)} people in {len(self._groups)} groups, {len(self._watchers)} watchers")
            await self._disturbed(actors)
            await self._calm()
            self._say("everybody logs in once more, and reads")
            await _in_turns(readers, [*actors, *self._watchers], self._read)
        self.book.wrong += self.faults.wrong

    def _enough(self) -> None:
        self._say("no more faults")
        self.faults.end()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    # --- people -----------------------------------------------------------------------------------------------------

    async def _people(self, readers: Sequence[HttpClient]) -> list[Actor]:
        system, cast = self._system, self._asked.cast
        watchers = [f"w{number:02}" for number in range(WATCHERS)]
        names = [*(role.user_id for role in cast.roles), *watchers]
        await _in_turns(readers, names, self._register)
        admin = readers[0]
        admin.token = system.stack.admin_token()
        await admin.call("POST", "/v1/users", json={"users": [{"user_id": name, "name": name} for name in names]})
        for node in system.parts.nodes:  # now their accounts are on disk
            await asyncio.to_thread(system.stack.restart, node)
        await asyncio.to_thread(system.all_ready)
        made = dict[int, Group]()

        async def make(client: HttpClient, place: int) -> None:
            members = [*cast.groups, tuple(watchers)][place]
            await client.log_in(members[0], self._passwords[members[0]])
            answer = await client.add_session(members[1:])
            made[place] = Group(answer["session_id"], frozenset(members))

        await _in_turns(readers, range(len(cast.groups) + 1), make)
        self._groups = {group.session_id: group for group in made.values()}
        world = World(system, self.book, self.now, self._passwords, self._groups)
        self._watchers = [Actor(Role(name, (), (), name), world, [made[len(cast.groups)]]) for name in watchers]
        for watcher in self._watchers:
            await watcher.come(resumes=True)
        return [Actor(role, world, [made[place] for place in role.groups]) for role in cast.roles]

    async def _register(self, _: HttpClient, name: str) -> None:
        self._passwords[name] = await asyncio.to_thread(self._system.stack.register_user, name)

    # --- the disturbance --------------------------------------------------------------------------------------------

    async def _disturbed(self, actors: Sequence[Actor]) -> None:
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for actor in actors:
                group.create_task(actor.live(over))
            names = [actor.name for actor in actors]
            group.create_task(OtherSystem(actors[0].world, names, random.Random(self._asked.seed)).live(over))  # noqa: S311
            try:
                await self._watch()
                await self.faults.go_through(self._asked.steps)
            finally:
                over.set()
        for watcher in self._watchers:
            await watcher.go()
        self._say("the faults are over, and everybody has gone")

    async def _watch(self) -> None:
        """Let one watcher write to all others. Raises TimeoutError unless all get it."""
        self._turn += 1
        writer = self._watchers[self._turn % len(self._watchers)]
        group = writer.groups[0]
        message = group_message(writer.name, group.session_id, MsgType.TEXT, {"text": f"watch {self._turn}"})
        lacking = {watcher.name for watcher in self._watchers} - {writer.name}
        try:
            async with asyncio.timeout(WELL_S):
                while not await writer.send(writer.devices[0], message, group.members):
                    pass
                for watcher in self._watchers:
                    if watcher is not writer:
                        await _until_came(watcher.devices[0], message.msg_id)
                        lacking.discard(watcher.name)
        except TimeoutError:
            raise TimeoutError(f"{sorted(lacking)} did not get what {writer.name} wrote in {WELL_S} s") from None

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """Wait until nobody is present. The XMPP server is restarted if somebody still is after `settle` seconds."""
        system = self._system
        await asyncio.to_thread(system.all_ready)
        await asyncio.sleep(LATE_S)
        for patience in (self._asked.settle, *[SETTLED_S] * RESTARTS):
            present = await self._until_absent(patience)
            if not present:
                return
            self._say(f"{present:.0f} people are present still: the XMPP server is restarted")
            for node in system.parts.nodes:
                await asyncio.to_thread(system.stack.restart, node)
            await asyncio.to_thread(system.all_ready)
        self.book.wrong.append("people are present, and everybody has gone")

    async def _until_absent(self, patience: float) -> float:
        """Wait until nobody is present, at most `patience` seconds. Return how many are."""
        until, absent = time.monotonic() + patience, 0
        while True:
            present = await asyncio.to_thread(self._present)
            absent = 0 if present else absent + 1
            if absent == LOOKS or (present and time.monotonic() > until):
                return present
            await asyncio.sleep(1)

    def _present(self) -> float:
        services = self._system.stack.services
        ports = [services.port(part) for part in self._system.parts.bridges if part in self._system.joined]
        return sum(_people_present(port) for port in ports)

    async def _read(self, client: HttpClient, actor: Actor) -> None:
        try:
            async with asyncio.timeout(CATCH_UP_S):
                device, xmpp = await _log_in(actor)
                await device.caught_up.wait()
            async with asyncio.timeout(READ_S):
                client.token = await ask_patiently(xmpp)
                self.book.readings[actor.name] = await read_patiently(client, actor.name)
        except (TimeoutError, ClientError) as error:
            self.book.wrong.append(f"{actor.name} did not catch up, got no token, or read nothing: {error!r}")
            return
        await actor.go()


async def _log_in(actor: Actor) -> tuple[Device, XmppClient]:
    """Log in, however often it takes; whoever calls sets a time limit."""
    while True:
        device = await actor.come(resumes=True)
        if device is not None and device.client is not None:
            return device, device.client
        await asyncio.sleep(1)


async def _until_came(device: Device, msg_id: str) -> None:
    while all(got.item.msg_id != msg_id for got in reversed(device.heard.messages)):
        device.came.clear()
        await device.came.wait()


def _people_present(port: int) -> float:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("tlim_bridge_people_present"))


async def _in_turns(
    clients: Sequence[HttpClient], of: Sequence[T], work: Callable[[HttpClient, T], Awaitable[None]]
) -> None:
    """Do something for everything, each client one at a time."""
    left = list(of)
    left.reverse()

    async def take() -> None:
        client = free.pop()
        while left:
            await work(client, left.pop())

    free = list(clients)
    await asyncio.gather(*(take() for _ in clients))

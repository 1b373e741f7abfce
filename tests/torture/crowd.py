"""People who write, come and go, and lose their networks, each by a die of their own."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from tlim_client.compose import about, group_message, receipt, text_message
from tlim_client.failures import ClientError, RefusedError
from tlim_client.http import HttpClient
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType

from tests.torture.book import Book, Item, Kind, Rename, Sent
from tests.torture.device import Clock, Device
from tests.torture.items import item_of
from tests.torture.plan import Role
from tests.torture.system import System

MOST_DEVICES = 2
RECALLS, RECEIPTS, IN_GROUPS, IN_LARGE = 0.05, 0.15, 0.22, 0.02
"""Shares of what people send. The rest are texts to one other person."""

RENAMES = 0.01
"""The share of changes of groups among what people do."""

PAUSE_S = 16.0
"""The mean time between two moves of a person. 200 people then send about 20 messages a second."""

AGAIN_S, PATIENCE_S = 3.0, 45.0
"""A client sends again after so many seconds without an answer, and gives up after so many."""

TOLD_TO_ALL = 200
"""In larger groups only the authors of messages hear who has read them, in a message of the server's."""


class Group(NamedTuple):
    """A session, with members that stay the same."""

    session_id: str
    members: frozenset[str]


@dataclass(frozen=True)
class World:
    """What all people share."""

    system: System
    book: Book
    now: Clock
    passwords: Mapping[str, str]
    groups: Mapping[str, Group]


@dataclass
class Actor:
    """A person who acts until told to stop. The first of `groups` may be the large one."""

    role: Role
    world: World
    groups: Sequence[Group]
    dice: random.Random = field(init=False)
    devices: list[Device] = field(default_factory=list)
    mine: list[Envelope] = field(default_factory=list)  # acknowledged texts that were not recalled
    logins: int = 0
    renames: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.role.dice)  # noqa: S311 - a seed names a run

    @property
    def name(self) -> str:
        return self.role.user_id

    async def live(self, over: asyncio.Event) -> None:
        """Act until `over` is set, then log out."""
        while not over.is_set():
            await _pause(over, self.dice.expovariate(1 / PAUSE_S))
            if over.is_set():
                break
            await self._move()
            writing = [self._write() for _ in range(self.dice.choice((0, 1, 1, 2, 4)))]
            await asyncio.gather(*writing)
        await self.go()

    async def go(self) -> None:
        """Log out with all devices."""
        for device in self.devices:
            await device.leave()
        self.devices.clear()

    async def come(self, *, resumes: bool | None = None) -> Device | None:
        """Log in with one more device. Returns None when the server does not let us in."""
        self.logins += 1
        resumes = self.dice.random() < 0.7 if resumes is None else resumes
        world, system = self.world, self.world.system
        label = f"{self.name}#{self.logins}{'' if resumes else ' without XEP-0198'}"
        heard = world.book.device(self.name, label, world.now())
        door = system.door(self.dice.choice(system.client_ports))
        device = Device(door, self.name, world.passwords[self.name], heard, world.now, resumes=resumes)
        try:
            await device.come()
        except ClientError:
            await device.leave()
            return None
        self.devices.append(device)
        return device

    async def send(self, device: Device, envelope: Envelope, receivers: frozenset[str], author: str = "") -> bool:
        """Send until stored, and write that down. Returns False if nobody knows whether it is stored."""
        one = Sent(item_of(envelope), receivers - {self.name}, author)
        self.world.book.sent[envelope.msg_id] = one
        assert device.client is not None
        try:
            stored = await device.client.send_until_stored(envelope, retry_after=AGAIN_S, give_up=PATIENCE_S)
        except RefusedError as refusal:
            self.world.book.wrong.append(f"{self.name}: {one.item.kind} {envelope.msg_id} was refused: {refusal}")
            return False
        except ClientError:
            return False
        one.seqs.append(stored.seq)
        one.stored_at = self.world.now()
        if one.item.kind is Kind.TEXT:
            self.mine.append(envelope)
        return True

    async def _move(self) -> None:
        if not self.devices:
            if self.dice.random() < 0.7:
                await self.come()
            return
        device = self.dice.choice(self.devices)
        match self.dice.choices(("come", "leave", "vanish", "blink", "stay"), (2, 3, 1, 2, 8))[0]:
            case "come" if len(self.devices) < MOST_DEVICES:
                await self.come()
            case "leave":
                self.devices.remove(device)
                await device.leave()
            case "vanish":
                self.devices.remove(device)
                await device.vanish()
            case "blink":
                ports = self.world.system.client_ports
                await device.lose_network(self.dice.uniform(0, 8), port=self.dice.choice(ports))

    async def _write(self) -> None:
        if not self.devices:
            return
        device = self.dice.choice(self.devices)
        if self.dice.random() < RENAMES and len(self.groups) > 1:
            await self._rename(device)
        else:
            await self.send(device, *self._something(device))

    async def _rename(self, device: Device) -> None:
        """Give a small group another name. If that fails, nobody knows whether it is called so."""
        group = self.dice.choice([one for one in self.groups if len(one.members) <= TOLD_TO_ALL])
        self.renames += 1
        rename = Rename(group.session_id, f"named by {self.name} {self.renames}", group.members)
        assert device.client is not None
        with suppress(ClientError):
            async with HttpClient(self.world.system.stack.addresses.gateway) as http:
                http.token = await device.client.fetch_token()
                await http.change_session(group.session_id, session_name=rename.name)
                self.world.book.renames.append(rename)

    def _something(self, device: Device) -> tuple[Envelope, frozenset[str], str]:
        """Return a message, the people it is addressed to, of which the sender may be one, and Sent.author."""
        die = self.dice.random()
        if die < RECALLS and self.mine:
            return self._recall(self.mine.pop())
        if die < RECALLS + RECEIPTS and device.chats:
            return self._receipt(device.chats[-1])
        text = f"{self.name} {len(self.world.book.sent)}"
        die -= RECALLS + RECEIPTS
        large = [group for group in self.groups if len(group.members) > TOLD_TO_ALL]
        small = [group for group in self.groups if group not in large]
        among = large if 0 <= die < IN_LARGE else small if 0 <= die < IN_LARGE + IN_GROUPS else []
        if among:
            group = self.dice.choice(among)
            return group_message(self.name, group.session_id, MsgType.TEXT, {"text": text}), group.members, ""
        friend = self.dice.choice(self.role.friends)
        return text_message(self.name, friend, text), frozenset({friend}), ""

    def _receipt(self, message: Envelope) -> tuple[Envelope, frozenset[str], str]:
        kind = self.dice.choice((MsgType.RECEIVED, MsgType.READ))
        author = frozenset({message.msg_from})
        told = self._receivers(message) | author if kind is MsgType.READ else author
        if len(told) > TOLD_TO_ALL:
            return receipt(self.name, message, kind), frozenset(), message.msg_from
        return receipt(self.name, message, kind), told, ""

    def _recall(self, message: Envelope) -> tuple[Envelope, frozenset[str], str]:
        named = {"to": message.msg_to, "session_id": message.session_id}
        return about(self.name, MsgType.RECALL, [message.msg_id], **named), self._receivers(message), ""

    def _receivers(self, message: Envelope) -> frozenset[str]:
        item: Item = item_of(message)
        group = self.world.groups.get(item.conversation)
        return group.members if group else frozenset({message.msg_to or self.name})


async def _pause(over: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()

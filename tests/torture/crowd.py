"""People who write, come and go, and lose their networks, each by a die of their own."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tlim_client.compose import about, group_message, receipt, text_message
from tlim_client.failures import ClientError
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import REGISTRY, Effect, MsgType

from tests.e2e.clients.people import Person, server_of
from tests.torture.book import Book, Sent
from tests.torture.device import Device

MOST_DEVICES = 2
RECALLS, RECEIPTS, IN_GROUPS = 0.05, 0.1, 0.25
"""Shares of what people send. The rest are texts to one other person."""


@dataclass
class Group:
    """A session, with members that stay the same."""

    session_id: str
    members: frozenset[str]


@dataclass
class Actor:
    """A person who acts until told to stop."""

    person: Person
    dice: random.Random
    book: Book
    friends: Sequence[str]
    groups: Sequence[Group]
    devices: list[Device] = field(default_factory=list)
    number: int = 0

    @property
    def name(self) -> str:
        return self.person.user_id

    async def live(self, over: asyncio.Event) -> None:
        """Act until `over` is set, then log out."""
        while not over.is_set():
            await self._pause(over, self.dice.expovariate(1 / 4))
            await self._move()
            writing = [self._write() for _ in range(self.dice.choice((0, 1, 1, 2, 4)))]
            await asyncio.gather(*writing)
        for device in self.devices:
            await device.leave()
        self.devices.clear()

    async def come(self) -> Device | None:
        """Log in with one more device. Returns None when the server does not let us in."""
        self.number += 1
        resumes = self.dice.random() < 0.7
        label = f"{self.name}#{self.number}{'' if resumes else ' without XEP-0198'}"
        heard = self.book.device(self.name, label)
        device = Device(server_of(self.person.stack), self.name, self.person.password, heard, resumes=resumes)
        try:
            await device.come()
        except ClientError:
            await device.leave()
            return None
        self.devices.append(device)
        return device

    async def _pause(self, over: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await over.wait()

    async def _move(self) -> None:
        if not self.devices:
            if self.dice.random() < 0.5:
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
                self.book.haunted.add(self.name)
                self.devices.remove(device)
                await device.vanish()
            case "blink":
                self.book.haunted.add(self.name)
                await device.lose_network(self.dice.uniform(0, 8))

    async def _write(self) -> None:
        if not self.devices:
            return
        device = self.dice.choice(self.devices)
        envelope, receivers = self._something(device)
        one = self.book.sent[envelope.msg_id] = Sent(envelope, receivers - {self.name})
        if REGISTRY[envelope.msg_type].effect is Effect.RECALL:
            self.book.recalled.update(element["msg_id"] for element in envelope.body)
        assert device.client is not None
        with suppress(ClientError):  # then nobody knows whether it is stored
            one.stored = await device.client.send_until_stored(envelope, retry_after=3, give_up=30)

    def _something(self, device: Device) -> tuple[Envelope, frozenset[str]]:
        """Return a message, and the people it is addressed to; the sender may be among them."""
        die = self.dice.random()
        if die < RECALLS and (mine := self._recallable()):
            return self._recall(mine[-1])
        heard = [one.envelope for one in device.heard.messages if REGISTRY[one.envelope.msg_type].is_chat]
        if die < RECALLS + RECEIPTS and heard:
            read, kind = heard[-1], self.dice.choice((MsgType.RECEIVED, MsgType.READ))
            return receipt(self.name, read, kind), self.book.sent[read.msg_id].receivers | {read.msg_from}
        text = f"{self.name} {len(self.book.sent)}"
        if die < RECALLS + RECEIPTS + IN_GROUPS and self.groups:
            group = self.dice.choice(self.groups)
            return group_message(self.name, group.session_id, MsgType.TEXT, {"text": text}), group.members
        friend = self.dice.choice(self.friends)
        return text_message(self.name, friend, text), frozenset({friend})

    def _recallable(self) -> list[Sent]:
        return [
            one
            for msg_id, one in self.book.sent.items()
            if one.stored and one.envelope.msg_from == self.name and msg_id not in self.book.recalled
            and REGISTRY[one.envelope.msg_type].is_chat
        ]  # fmt: skip

    def _recall(self, one: Sent) -> tuple[Envelope, frozenset[str]]:
        envelope = one.envelope
        recall = about(self.name, MsgType.RECALL, [envelope.msg_id], to=envelope.msg_to, session_id=envelope.session_id)
        return recall, one.receivers

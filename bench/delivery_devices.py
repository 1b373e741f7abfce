"""The people of `delivery.py`: devices that note when messages come, and a pair that writes at a steady rate."""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

from tlim_client.compose import text_message
from tlim_client.inbox import CaughtUp, Delivered, Inbox, Received
from tlim_client.xmpp import ServerAddress, XmppClient
from tlim_protocol.registry import MsgType

PATIENCE_S = 300.0
TEXT = "as long as people's messages are, which is about a hundred characters or so, and never the same: "


class Account(NamedTuple):
    """A person with an account at the XMPP server."""

    user_id: str
    password: str


class Sample(NamedTuple):
    """A message of the pair: when it was due by time.monotonic(), and how many seconds later it had come."""

    due: float
    took: float


class Arrivals(Inbox):
    """Notes when each message came, and when the mark behind what was missed came, by time.monotonic().

    Other events are kept as in every inbox.
    """

    def __init__(self) -> None:
        super().__init__()
        self.came: dict[str, float] = {}
        self.kinds: Counter[MsgType] = Counter()
        self.caught_up: float | None = None
        self._changed = asyncio.Event()

    def put(self, event: Received) -> None:
        """Note a delivery. It is not kept: to look through 10,000 of them would take longer than their way here."""
        if isinstance(event, Delivered):
            self.came.setdefault(event.envelope.msg_id, time.monotonic())
            self.kinds[event.envelope.msg_type] += 1
        elif isinstance(event, CaughtUp):
            self.caught_up = time.monotonic()
        else:
            super().put(event)
            return
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a condition on what came holds. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def until_came(self, msg_id: str) -> None:
        """Wait for a message. Raises TimeoutError."""
        await self.until(lambda: msg_id in self.came)

    async def until_counted(self, kind: MsgType, count: int) -> None:
        """Wait until so many messages of a kind have come. Raises TimeoutError."""
        await self.until(lambda: self.kinds[kind] >= count)


class Device(XmppClient):
    """A device that notes when messages come."""

    def __init__(self, server: ServerAddress, account: Account) -> None:
        super().__init__(server, account.user_id, account.password)
        self.inbox: Arrivals = Arrivals()


class Pair:
    """Two people in a process of their own: what their client costs does not depend on the loads in our process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def stop(self) -> list[Sample]:
        """Let the pair stop, and return the samples when all messages have come. Raises EOFError if it failed."""
        self._pipe.send("stop")
        samples: list[Sample] = await asyncio.to_thread(self._pipe.recv)
        return samples


@asynccontextmanager
async def running_pair(server: ServerAddress, sender: Account, receiver: Account, rate: float) -> AsyncIterator[Pair]:
    """Let the first person write to the second, `rate` messages a second, from now on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_be_the_pair, args=(server, sender, receiver, rate, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        await asyncio.to_thread(ours.recv)
        yield Pair(ours)
    finally:
        process.terminate()
        process.join()


def _be_the_pair(server: ServerAddress, sender: Account, receiver: Account, rate: float, pipe: Connection) -> None:
    asyncio.run(_write_steadily(server, sender, receiver, rate, pipe))


async def _write_steadily(
    server: ServerAddress, sender: Account, receiver: Account, rate: float, pipe: Connection
) -> None:
    async with Device(server, sender) as writer, Device(server, receiver) as reader:
        pipe.send("ready")
        due, sent = time.monotonic(), dict[str, float]()
        while not pipe.poll():
            message = text_message(writer.user, reader.user, TEXT + str(len(sent)))
            sent[message.msg_id] = due
            writer.send(message)
            due += 1 / rate
            await asyncio.sleep(due - time.monotonic())
        await reader.inbox.until(lambda: len(reader.inbox.came) == len(sent))
        pipe.send([Sample(due, reader.inbox.came[msg_id] - due) for msg_id, due in sent.items()])

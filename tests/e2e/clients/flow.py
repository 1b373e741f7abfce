"""A steady flow of messages from one person to another, during which a test disturbs the system."""

import asyncio
import itertools
from collections.abc import Callable

from tlim_client.inbox import Delivered, Stored
from tlim_client.xmpp import XmppClient
from tlim_devstack.stack import Stack
from tlim_devstack.waiting import wait_until

from tests.e2e.clients.patience import patiently
from tests.e2e.clients.people import Person

AT_ONCE = 20
CALM = 60
"""Messages acknowledged before the disturbance, and again after it."""


class Flow:
    """Sends messages, AT_ONCE at a time; each is sent again until it is acknowledged, for `patience` seconds."""

    def __init__(self, sender: Person, device: XmppClient, receiver: Person, patience: float = 90) -> None:
        self._sender, self.device, self._receiver = sender, device, receiver
        self._patience = patience
        self._numbers = itertools.count(1)
        self._is_over = False
        self._progress = asyncio.Condition()
        self.acknowledged: dict[str, Stored] = {}

    async def disturbed_by(self, *disturbances: Callable[[], None]) -> None:
        """Let messages flow before, during and after each disturbance (which may block); return when all are stored."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._keep_sending())
            for disturb in disturbances:
                await self._progress_of(CALM)
                await asyncio.to_thread(disturb)
            await self._progress_of(CALM)
            self._is_over = True

    async def _progress_of(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= goal)

    async def _keep_sending(self) -> None:
        while not self._is_over:
            envelope = self._sender.text_to(self._receiver, f"number {next(self._numbers)}")
            stored = await self.device.send_until_stored(envelope, retry_after=2, give_up=self._patience)
            async with self._progress:
                self.acknowledged[envelope.msg_id] = stored
                self._progress.notify_all()


async def assert_stored(flow: Flow, reader: Person, peer: Person) -> list[str]:
    """Assert that history is exactly the acknowledged messages, and return their msg_ids in order."""
    http = await reader.http()
    history = await patiently(lambda: http.history(peer.user_id, after=0))
    seqs = [message["seq"] for message in history]
    assert seqs == sorted(stored.seq for stored in flow.acknowledged.values())
    assert {message["msg_id"]: message["seq"] for message in history} == {
        msg_id: stored.seq for msg_id, stored in flow.acknowledged.items()
    }
    return [message["msg_id"] for message in history]


async def assert_all_delivered(flow: Flow, sender: Person, receiver: Person, device: XmppClient) -> list[str]:
    """Assert that each acknowledged message is stored once and was delivered at least once.

    Returns the msg_ids in the order of the store.
    """
    stored = await assert_stored(flow, sender, receiver)
    missing = set(stored)
    while missing:
        delivered = await device.expect(Delivered, within=30)
        missing.discard(delivered.envelope.msg_id)
    return stored


async def assert_all_kept(flow: Flow, sender: Person, receiver: Person, device: XmppClient) -> None:
    """Assert the same, and that the first deliveries are in the order of seq."""
    stored = await assert_all_delivered(flow, sender, receiver, device)
    firsts = list(dict.fromkeys(event.envelope.msg_id for event in device.inbox.all(Delivered)))
    assert firsts == stored, "first deliveries are not in the order of seq"


def kill_and_wait(stack: Stack, name: str) -> None:
    """Kill a part, and wait until it runs again."""
    killed = stack.supervisor.pid(name)
    stack.kill(name)
    wait_until(lambda: stack.supervisor.pid(name) not in {0, killed}, f"the return of {name}")
    stack.wait_ready(name)

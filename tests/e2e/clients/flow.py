"""A steady flow of messages from one person to another, to disturb the system under it."""

import asyncio
from collections.abc import Callable

from tlim_client.inbox import Delivered, Stored
from tlim_client.xmpp import XmppClient
from tlim_protocol.envelope import Envelope

from tests.e2e.clients.people import Person

AT_ONCE = 20


class Flow:
    """Sends `count` messages, each until it is acknowledged, AT_ONCE under way at any time."""

    def __init__(self, sender: Person, device: XmppClient, receiver: Person, count: int) -> None:
        self._device = device
        self._messages = [sender.text_to(receiver, f"number {number}") for number in range(count)]
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._progress = asyncio.Condition()
        self.acknowledged: dict[str, Stored] = {}

    async def run(self) -> None:
        """Return when every message was acknowledged."""
        async with asyncio.TaskGroup() as group:
            for envelope in self._messages:
                group.create_task(self._send(envelope))

    async def reached(self, count: int) -> None:
        """Return when that many messages were acknowledged."""
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= count)

    async def disturbed_by(self, disturb: Callable[[], None]) -> None:
        """Run, and call `disturb` (it may block) once a third of the messages was acknowledged."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.run())
            await self.reached(len(self._messages) // 3)
            await asyncio.to_thread(disturb)

    async def _send(self, envelope: Envelope) -> None:
        async with self._slots:
            stored = await self._device.send_until_stored(envelope, retry_after=2, give_up=90)
        async with self._progress:
            self.acknowledged[envelope.msg_id] = stored
            self._progress.notify_all()


async def assert_all_kept(flow: Flow, sender: Person, receiver: Person, device: XmppClient) -> None:
    """Assert that history is exactly what was acknowledged, and that the receiver got every message at least once."""
    history = await (await sender.http()).history(receiver.user_id, after=0)
    assert [message["seq"] for message in history] == sorted(stored.seq for stored in flow.acknowledged.values())
    assert {message["msg_id"]: message["seq"] for message in history} == {
        msg_id: stored.seq for msg_id, stored in flow.acknowledged.items()
    }
    missing = set(flow.acknowledged)
    while missing:
        delivered = await device.expect(Delivered, timeout=30)
        missing.discard(delivered.envelope.msg_id)
    firsts = list(dict.fromkeys(event.envelope.msg_id for event in device.inbox.all(Delivered)))
    assert firsts == [message["msg_id"] for message in history], "first deliveries are not in the order of seq"

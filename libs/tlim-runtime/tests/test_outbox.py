"""Asking whether NATS answers, by callers that each hold a database connection."""

import asyncio
from typing import Any

import pytest
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.outbox import Outbox, OutboxRelay
from tlim_runtime.tables import new_metadata

OUTBOX = Outbox(new_metadata())


class SilentBroker:
    """A round trip takes until `over`, and fails unless the broker answers again."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = False
        self.over = asyncio.Event()

    async def ping(self) -> None:
        self.asked += 1
        await self.over.wait()
        if not self.answers:
            raise BrokerUnavailable("NATS does not answer")


async def test_while_nats_says_nothing_one_caller_waits_and_all_others_are_refused_at_once() -> None:
    unused: Any = None
    broker: Any = SilentBroker()
    relay = OutboxRelay(unused, broker, OUTBOX)
    broker.over.set()
    with pytest.raises(BrokerUnavailable):
        await relay.require_broker()
    broker.over.clear()
    waiting = asyncio.ensure_future(relay.require_broker())
    await asyncio.sleep(0)
    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            await relay.require_broker()
    assert broker.asked == 2
    broker.answers = True
    broker.over.set()
    await waiting
    broker.over.clear()
    together = [asyncio.ensure_future(relay.require_broker()) for _ in range(3)]
    await asyncio.sleep(0)
    assert broker.asked == 5
    broker.over.set()
    await asyncio.gather(*together)

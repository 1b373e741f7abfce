"""A message whose time is over is not sent, although nobody has been told so yet: the process has hung."""

import asyncio
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.publisher import Publisher


async def test_what_waited_while_the_process_hung_is_not_sent_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = MagicMock(is_connected=True, max_payload=1_000, publish=AsyncMock(), subscribe=AsyncMock())
    publisher = Publisher(max_pending=10, ack_timeout=5)
    await publisher.start(client)
    await asyncio.sleep(0)
    answer = publisher.publish("tlim.in.x", b"hello", "id", {})
    loop = asyncio.get_running_loop()
    before = loop.time
    monkeypatch.setattr(loop, "time", lambda: before() + 6)
    with pytest.raises(BrokerUnavailable):
        await answer
    client.publish.assert_not_called()
    await publisher.stop()

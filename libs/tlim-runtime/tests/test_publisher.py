"""A message whose time is over is not sent: the process has hung. One that NATS cannot carry stops no other."""

import asyncio
import json
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from structlog.testing import capture_logs
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


async def test_a_message_that_cannot_be_sent_is_logged_with_its_trace() -> None:
    client: Any = MagicMock(
        is_connected=True, max_payload=1_000, publish=AsyncMock(side_effect=ValueError("a bad subject")),
        subscribe=AsyncMock(),
    )  # fmt: skip
    publisher = Publisher(max_pending=10, ack_timeout=5)
    await publisher.start(client)
    traceparent = f"00-{'4b' * 16}-{'0a' * 8}-01"
    with capture_logs() as lines, pytest.raises(ValueError, match="a bad subject"):
        await publisher.publish("tlim.in.x", b'{"msg_id": "m1"}', "id", {"traceparent": traceparent})
    assert [(line["msg_id"], line["trace_id"]) for line in lines] == [("m1", "4b" * 16)]
    await publisher.stop()


async def test_a_message_that_the_stream_refuses_has_failed_and_one_without_an_id_has_no_headers() -> None:
    client: Any = MagicMock(is_connected=True, max_payload=1_000, publish=AsyncMock(), subscribe=AsyncMock())
    client.new_inbox.return_value = "_INBOX.x"
    publisher = Publisher(max_pending=10, ack_timeout=5)
    await publisher.start(client)
    sent = asyncio.Event()
    client.publish.side_effect = lambda *_, **__: sent.set()
    answer = publisher.publish("tlim.in.x", b"hello", "", {})
    await sent.wait()
    assert client.publish.call_args.kwargs["headers"] is None
    heard = client.subscribe.call_args.kwargs["cb"]
    refusal = {"error": {"err_code": 10077, "description": "a reason"}}
    await heard(MagicMock(subject="_INBOX.x.1", headers=None, data=json.dumps(refusal).encode()))
    with pytest.raises(BrokerUnavailable, match="JetStream: a reason"):
        await answer
    await publisher.stop()

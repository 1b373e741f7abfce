"""Reading JetStream, for stories about events that are not visible over XMPP or HTTP."""

import base64
import json
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tlim_devstack.stack import Stack
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import StreamName
from tlim_protocol.subjects import every_in
from tlim_runtime.broker import Broker

PROVISIONER = "provision"  # the one user who may ask JetStream about any stream


async def file_event(stack: Stack, kind: MsgType, **fields: str) -> dict[str, Any]:
    """Return an event about a file with these fields; wait for it, as an outbox may be behind."""
    url, password = f"nats://127.0.0.1:{stack.ports.nats}", stack.credentials.nats[PROVISIONER]
    broker = await Broker.connect(url, PROVISIONER, password, "stories")
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(LookupError), wait=wait_fixed(0.1), stop=stop_after_delay(30), reraise=True
        ):
            with attempt:
                return await _find(broker, kind, fields)
        raise AssertionError("unreachable: the last attempt raises")
    finally:
        await broker.close()


async def _find(broker: Broker, kind: MsgType, fields: dict[str, str]) -> dict[str, Any]:
    place = 1
    while True:
        operation = f"STREAM.MSG.GET.{StreamName.FILES}"
        answer = await broker.api(operation, seq=place, next_by_subj=every_in(kind))
        if "error" in answer:
            raise LookupError(f"no event {kind} with {fields}")
        event: dict[str, Any] = json.loads(base64.b64decode(answer["message"]["data"]))
        if fields.items() <= event.items():
            return event
        place = answer["message"]["seq"] + 1

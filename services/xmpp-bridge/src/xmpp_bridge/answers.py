"""Brings the store's decision to the bridge that had accepted the message, if another bridge was told of it.

The decision is in the shard of the message's sender. An HTTP request, or the account of what its sender costs, waits in
the bridge that accepted the message. That bridge is `via`.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from pydantic import ValidationError
from tlim_protocol.dead_letters import msg_id_in
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage, read_out_event
from tlim_protocol.registry import REGISTRY
from tlim_protocol.subjects import subject_answer
from tlim_runtime.background import Background
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import Unavailable
from tlim_runtime.pulse import waiting
from tlim_runtime.tracing import trace_of

from xmpp_bridge.metrics import msg_id_of
from xmpp_bridge.translate import NO_JID

logger = get_logger(__name__)

MOST_WAITING = 10_000
"""Decisions on their way to other bridges. What comes beyond is dropped: a request then times out, and says so."""


class AnswerBroker(Protocol):
    """NATS, as far as answers need it (tlim_runtime.broker.Broker)."""

    async def send(self, subject: str, payload: bytes) -> None: ...
    async def listen(self, subject: str, heard: Callable[[str, bytes], None]) -> None: ...


class Answers:
    """Takes the out events of this bridge's shards. Those that this bridge has asked for go to `heard`."""

    def __init__(self, broker: AnswerBroker, instance: str, heard: Callable[[OutEvent], None]) -> None:
        self._broker = broker
        self._me = instance
        self._heard = heard
        self._waiting: asyncio.Queue[tuple[OutEvent, str | None]] = asyncio.Queue(MOST_WAITING)
        self._sending = Background("answers to other bridges", self._send)

    async def start(self) -> None:
        """Begin to listen to the other bridges."""
        await self._broker.listen(subject_answer(self._me), self._receive)
        self._sending.start()

    async def stop(self) -> None:
        """Stop."""
        await self._sending.stop()

    def take(self, event: OutEvent, traceparent: str | None = None) -> None:
        """Hand on a decision of the store, which came with this traceparent. The same one may come again."""
        if event.via in {None, self._me}:
            self._heard(event)
        elif is_awaited(event) and not self._waiting.full():
            self._waiting.put_nowait((event, traceparent))

    async def _send(self) -> None:
        while True:
            with waiting():
                event, traceparent = await self._waiting.get()
            if isinstance(event, StoredMessage):
                event = event.model_copy(update={"recipients": []})  # thousands, and `reach` says how many
            try:
                await self._broker.send(subject_answer(event.via or ""), event.to_bytes())
            except Unavailable as error:
                logger.warning(
                    "an answer to another bridge is lost",
                    via=event.via,
                    msg_id=msg_id_of(event),
                    reason=str(error),
                    **trace_of(traceparent),
                )

    def _receive(self, subject: str, payload: bytes) -> None:
        try:
            event = read_out_event(payload)
        except ValidationError:
            logger.exception("no out event", subject=subject, msg_id=msg_id_in(payload))
        else:
            self._heard(event)


def is_awaited(event: OutEvent) -> bool:
    """Whether the bridge that accepted the message needs to know: for an HTTP request, or for the sender's account."""
    if isinstance(event, RejectedMessage):
        return True
    return (event.reply_to or "").startswith(NO_JID) or REGISTRY[event.envelope.msg_type].is_group

"""Dead letters for operators: what could not be processed and why; and sending it its way again."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tlim_protocol.dead_letters import CAUSE_HEADER, REASON_HEADER, SUBJECT_HEADER, msg_id_in, sent_again_id
from tlim_protocol.errors import ErrorCode, TlimError, quoted
from tlim_protocol.streams import StreamName
from tlim_runtime.broker import Broker
from tlim_runtime.tracing import TRACEPARENT, headers_with

from message_store.operate.schemas import DeadLetter, DeadLetters
from message_store.stored import headers_of, payload_of
from message_store.stream_end import newest_in

LOOK_AT = 500
"""Places of the stream that one page looks at. Letters that were sent again leave gaps: a page may be short."""


class DeadLetterBox:
    """The stream TLIM_DEAD."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def page(self, before: int | None, limit: int) -> DeadLetters:
        """Return up to `limit` letters before a place in the stream, newest first; raises BrokerUnavailable."""
        state = await self._broker.stream_state(StreamName.DEAD)
        place = state.last_seq if before is None else min(before - 1, state.last_seq)
        lowest = max(state.first_seq, place - LOOK_AT + 1, 1)
        items: list[DeadLetter] = []
        while state.messages and place >= lowest and len(items) < limit:
            found = await self._at(place)
            if found is not None:
                items.append(_letter(place, found))
            place -= 1
        return DeadLetters(items=items, next_before=place + 1 if state.messages and place >= state.first_seq else None)

    async def sendable(self, seq: int) -> bool:
        """Tell whether there is such a letter; raises TlimError(FIELD_INVALID) for one whose subject leads nowhere."""
        found = await self._at(seq)
        if found is not None:
            _require_way(_letter(seq, found))
        return found is not None

    async def redrive(self, seq: int) -> DeadLetter | None:
        """Send a letter its way again, and remove it; None if there is none.

        Raises BrokerUnavailable, and TlimError(FIELD_INVALID) for a letter whose subject is none that we can send on.
        A letter that cannot be processed this time either becomes a new one. JetStream drops a repeated request as a
        duplicate; whoever processes the letter would do so as well.
        """
        found = await self._at(seq)
        if found is None:
            return None
        letter = _letter(seq, found)
        _require_way(letter)
        headers = dict(headers_with(headers_of(found).get(TRACEPARENT)))
        if letter.subject.startswith("tlim.out."):  # its own event would tell that publishing was at an old seq
            headers |= (await newest_in(self._broker)).headers()
        await self._broker.publish(letter.subject, payload_of(found), sent_again_id(seq), headers)
        await self._broker.answered(f"STREAM.MSG.DELETE.{StreamName.DEAD}", seq=seq, no_erase=True)
        return letter

    async def _at(self, seq: int) -> dict[str, Any] | None:
        answer = await self._broker.api(f"STREAM.MSG.GET.{StreamName.DEAD}", seq=seq)
        message: dict[str, Any] | None = answer.get("message")
        return message


def _require_way(letter: DeadLetter) -> None:
    if not letter.subject.startswith(("tlim.in.", "tlim.out.")):
        raise TlimError(ErrorCode.FIELD_INVALID, f"subject {quoted(letter.subject)} leads nowhere", field="seq")


def _letter(seq: int, message: Mapping[str, Any]) -> DeadLetter:
    headers, data = headers_of(message), payload_of(message)
    return DeadLetter(
        seq=seq,
        at=int(datetime.fromisoformat(message["time"]).timestamp() * 1000),
        subject=headers.get(SUBJECT_HEADER, ""),
        cause=headers.get(CAUSE_HEADER, ""),
        reason=headers.get(REASON_HEADER, ""),
        size=len(data),
        msg_id=msg_id_in(data),
    )

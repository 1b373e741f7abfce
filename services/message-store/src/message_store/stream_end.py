"""What the end of TLIM_OUT tells: up to which message of the log everything was published."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from tlim_protocol.dead_letters import PUBLISHED_HEADER, is_sent_again
from tlim_protocol.events import OutEvent, StoredMessage, read_out_event
from tlim_protocol.streams import StreamName
from tlim_runtime.broker import Broker
from tlim_runtime.logging import get_logger

from message_store.stored import headers_of, payload_of

logger = get_logger(__name__)

_NOTHING_EVER = "nothing"


class Newest(NamedTuple):
    """What TLIM_OUT tells: whether nothing was ever published in it, and the newest published seq, if it is known."""

    is_fresh: bool
    seq: int | None

    def headers(self) -> dict[str, str]:
        """Return the headers of a letter that is sent again now: it tells what the stream has told before it."""
        if self.is_fresh:
            return {PUBLISHED_HEADER: _NOTHING_EVER}
        return {} if self.seq is None else {PUBLISHED_HEADER: str(self.seq)}


UNKNOWN = Newest(is_fresh=False, seq=None)


def newest_seq_of(event: OutEvent) -> int | None:
    """Return the newest seq that was published whole at the time of `event`; None when it does not tell.

    Every event has to tell it. The stream is trimmed up to the newest acknowledged event, so a single event may be all
    that is left. A loss takes the end of the stream, so the last piece of a message shows that all of it is there.
    """
    if isinstance(event, StoredMessage) and event.reach:
        return event.seq if event.is_last else event.seq - 1
    return event.after_seq


async def newest_in(broker: Broker) -> Newest:
    """Walk back from the end of TLIM_OUT to the first event that tells where publishing was; raises BrokerUnavailable.

    The walk has no limit but the stream. With one, what a loss took from behind many silent events would be skipped.
    """
    state = await broker.stream_state(StreamName.OUT)
    if state.last_seq == 0:
        return Newest(is_fresh=True, seq=None)
    position = state.last_seq
    while state.messages and position >= state.first_seq:
        stored = await broker.api(f"STREAM.MSG.GET.{StreamName.OUT}", seq=position)
        told = _told_by(stored["message"]) if "message" in stored else UNKNOWN
        if told != UNKNOWN:
            return told
        position -= 1
    return UNKNOWN


def _told_by(message: Mapping[str, Any]) -> Newest:
    headers = headers_of(message)
    if is_sent_again(headers.get("Nats-Msg-Id", "")):  # the event in it is old, or cannot be read
        told = headers.get(PUBLISHED_HEADER, "")
        return Newest(is_fresh=told == _NOTHING_EVER, seq=int(told) if told.isdecimal() else None)
    try:
        return Newest(is_fresh=False, seq=newest_seq_of(read_out_event(payload_of(message))))
    except ValidationError:
        logger.warning("an event in the stream cannot be read", stream=StreamName.OUT.value, place=message.get("seq"))
        return UNKNOWN

"""A message as JetStream delivers it, read from the address of its acknowledgement."""

from dataclasses import dataclass

from nats.aio.msg import Msg

from tlim_runtime.tracing import TRACEPARENT

NANOSECONDS = 1_000_000_000


@dataclass(slots=True)
class Delivery:
    """A delivered, unacknowledged message; `place` numbers the deliveries of the consumer, without gaps."""

    subject: str
    data: bytes
    reply: str
    stream_seq: int
    place: int
    received_at: int  # when the server received it: epoch milliseconds, converted to our clock
    traceparent: str | None = None  # of the step that published it
    weight: int = 0


def nothing(stream_seq: int, place: int) -> Delivery:
    """Return what stands for the last delivery when only its numbers count."""
    return Delivery("", b"", "", stream_seq, place, 0)


def read(message: Msg, ahead: float) -> Delivery:
    """Return what JetStream delivered; its clock is `ahead` seconds behind ours."""
    # $JS.ACK.<stream>.<consumer>.<count>.<stream seq>.<place>.<time>.<pending>. A domain adds parts around these.
    parts = message.reply.split(".")
    stream_seq, place, stored_ns = parts[5:8] if len(parts) == 9 else parts[7:10]
    received_at = int((int(stored_ns) / NANOSECONDS + ahead) * 1000)
    traceparent = None if message.headers is None else message.headers.get(TRACEPARENT)
    return Delivery(message.subject, message.data, message.reply, int(stream_seq), int(place), received_at, traceparent)

"""The rules for messages from clients: each is taken over, or refused with one code."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol
from xml.etree.ElementTree import Element

from tlim_protocol.body import Charge
from tlim_protocol.dead_letters import msg_id_in
from tlim_protocol.envelope import MAX_STANZA_BYTES, read_envelope
from tlim_protocol.errors import ErrorCode, TlimError
from tlim_protocol.events import AcceptedMessage
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.subjects import subject_in
from tlim_runtime.broker import PubAck
from tlim_runtime.logging import NAMED_IN_LOG, get_logger
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import Unavailable
from tlim_runtime.tracing import Headers, Stage, TraceSpan, trace_of

from xmpp_bridge.footprint import priced
from xmpp_bridge.metrics import BridgeMetrics
from xmpp_bridge.pace import SenderPace
from xmpp_bridge.translate import Accept, Arrival, BridgeAddresses, read_arrival, write_error

logger = get_logger(__name__)

MAX_BYTES_IN_FLIGHT = 16 * 1024 * 1024
"""The bound on bytes in flight. The bound on the number of messages is not enough: a compressed message can be a
thousand times as large when it is unpacked."""

BYTES_AT_ONCE = 256 * 1024
"""How much is taken over in one turn of the event loop, unpacked. The message that passes this bound is the last one.

One read of the socket brings as much, so small messages do not wait. But it can hold 120 compressed messages, which are
120 MiB unpacked, and JSON5 takes 50 ms for each MiB. The leases of the shards lapse after 1.5 s (leases.py)."""

RED_SECONDS = 10
"""How long readiness stays red after a failed publish, in seconds, if no later publish succeeds."""


class InPublisher(Protocol):
    """Where accepted messages go: the broker."""

    def publish_soon(self, subject: str, payload: bytes, *, headers: Headers) -> asyncio.Future[PubAck]: ...


class Door(Protocol):
    """Where messages come from and refusals go: the component."""

    def send(self, stanzas: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def abort(self) -> None: ...

    @property
    def is_in_doubt(self) -> bool: ...


class Unread(NamedTuple):
    """A stanza that has come, and when: in epoch milliseconds, and by the clock of time.monotonic."""

    stanza: Element
    received_at: int
    read_at: float


class Taken(NamedTuple):
    """A message on its way to JetStream, and what is needed to refuse it when it does not get there."""

    arrival: Arrival
    msg_id: str
    size: int
    read_at: float  # by the clock of time.monotonic
    span: TraceSpan


class MessageIntake:
    """Takes over what clients send: checks each message and publishes it in order, with a bound on those in flight.

    When the messages or the bytes in flight reach their bound, nothing more is taken over until both are at half of it
    or less. What the door had already read (one buffer) waits, and the door is paused meanwhile. The same happens when
    a buffer is more than one turn of the event loop may take over: the rest waits for the next turns. Everything
    happens in callbacks, because a task or a log line per message would cost more than the message itself.
    """

    def __init__(
        self,
        addresses: BridgeAddresses,
        publisher: InPublisher,
        door: Door,
        metrics: Metrics,
        *,
        pace: SenderPace,
        in_flight_limit: int,
        accept: Accept,
        is_deactivated: Callable[[str], bool],
        via: str,
    ) -> None:
        self._addresses = addresses
        self._via = via
        self._publisher = publisher
        self._door = door
        self._pace = pace
        self._limit = in_flight_limit
        self._believed = accept
        self._is_deactivated = is_deactivated
        self._is_warned = False
        self._in_flight = 0
        self._bytes_in_flight = 0
        self._unread: deque[Unread] = deque()
        self._read_this_turn = 0  # bytes
        self._has_next_turn = self._is_full = self._is_paused = self._is_leaving = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed_at = float("-inf")
        self._metrics = BridgeMetrics(metrics)
        self._tracing = metrics.tracing
        self._metrics.in_flight.set_function(lambda: self._in_flight)

    def take(self, stanza: Element) -> None:
        """Publish the tlim message in a `<message>`, or answer its sender with the code that refuses it.

        A stanza without a tlim message, or with a sender that cannot be trusted, is ignored. The stanza waits if those
        before it wait, if too much is in flight, or if this turn of the event loop has taken its share.
        """
        self._unread.append(Unread(stanza, time.time_ns() // 1_000_000, time.monotonic()))
        self._read()

    def leave(self) -> None:
        """From now on take over what waits when the connection ends.

        The server sends to other bridges now, and nobody who writes there comes behind what still waits here.
        """
        self._is_leaving = True

    def connection_lost(self) -> None:
        """Drop what waits. Its senders go on over another bridge, and send again what has no answer.

        If it was stored later, it would be behind what they have sent meanwhile.
        """
        if self._unread and not self._is_leaving:
            self._drop("the connection was lost")
            self._look_at_door()

    def _drop(self, reason: str) -> None:
        dropped = list(self._unread)
        self._unread.clear()
        msg_ids = [self._msg_id_of(unread.stanza) for unread in dropped[:NAMED_IN_LOG]]  # their traces have not begun
        logger.warning("messages were dropped", reason=reason, messages=len(dropped), msg_ids=msg_ids)

    def _read(self) -> None:
        """Take over what waits: as much as this turn of the event loop may."""
        if self._unread and self._door.is_in_doubt:
            self._door.abort()
            self._drop("the bridge had hung, and may have been given up")
        while self._unread and not self._is_full and self._read_this_turn < BYTES_AT_ONCE:
            self._read_this_turn += 1  # something, whatever it is: then there is a next turn
            self._take(self._unread.popleft())
        if self._read_this_turn and not self._has_next_turn:
            self._has_next_turn = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._look_at_door()

    def _next_turn(self) -> None:
        self._has_next_turn = False
        self._read_this_turn = 0
        self._read()

    def _look_at_door(self) -> None:
        if self._is_full or self._unread:
            self._is_paused = True
            self._door.pause()  # every time, because a new connection starts unpaused
        elif self._is_paused:
            self._is_paused = False
            self._door.resume()
        if not self._in_flight and not self._unread:
            self._idle.set()
        else:
            self._idle.clear()

    def _take(self, unread: Unread) -> None:
        """Take over one stanza. Never raises, because one stanza must not hold up the others."""
        try:
            arrival = read_arrival(unread.stanza, self._addresses, self._believed)
            if arrival is None:
                self._metrics.ignored.inc()
                self._warn_of_the_other_way(unread.stanza)
                return
        except Exception:
            logger.exception("a stanza could not be read", sender=unread.stanza.get("from"))
            return
        span = self._tracing.begin(Stage.ACCEPT, None)
        try:
            self._publish(arrival, *self._accept(arrival, unread.received_at), unread.read_at, span)
        except TlimError as error:
            self._refuse(arrival, error, span)
        except Exception:
            msg_id, stanza_id = msg_id_in(arrival.text or ""), arrival.stanza_id
            logger.exception(
                "a stanza could not be processed",
                sender=arrival.sender,
                stanza_id=stanza_id,
                msg_id=msg_id,
                **trace_of(span.traceparent),
            )
            failure = TlimError(ErrorCode.UNAVAILABLE, "the server could not process it", msg_id=msg_id)
            self._refuse(arrival, failure, span)

    async def drained(self) -> None:
        """Return when everything that came so far is taken over, and JetStream has answered for it."""
        await self._idle.wait()

    async def ping(self) -> None:
        """Raise Unavailable after a failed publish: until the next success, or for RED_SECONDS if nothing follows."""
        if time.monotonic() - self._failed_at < RED_SECONDS:
            raise Unavailable("messages could not be published")

    def _warn_of_the_other_way(self, stanza: Element) -> None:
        """Log once that a message came in a way that TLIM_ACCEPT does not name: the setting may be wrong."""
        if self._is_warned:
            return
        if read_arrival(stanza, self._addresses, Accept.BOTH) is not None:
            self._is_warned = True
            logger.warning(
                "a tlim message came in a way that TLIM_ACCEPT does not name; such are ignored, and not logged again",
                accept=self._believed.value,
                sender=stanza.get("from"),
                msg_id=self._msg_id_of(stanza),
            )

    def _msg_id_of(self, stanza: Element) -> str | None:
        arrival = read_arrival(stanza, self._addresses, Accept.BOTH)
        return None if arrival is None else msg_id_in(arrival.text or "")

    def _accept(self, arrival: Arrival, received_at: int) -> tuple[AcceptedMessage, bytes]:
        """Count the message and return it, and as it travels. A refused one counts too: nonsense must have a bound."""
        sender = normalize_user_id(arrival.sender)
        size = 0

        def charge(more: int) -> None:
            nonlocal size
            size += more
            self._read_this_turn += more
            self._pace.count_bytes(sender, more)

        charge(arrival.size)
        try:
            message = self._check(arrival, sender, received_at, charge)
        except TlimError as error:
            self._pace.count_nonsense(sender, error.msg_id)
            raise
        payload = message.to_bytes()
        self._pace.count(sender, message.envelope, priced(size, payload))
        if self._is_deactivated(sender):
            raise TlimError(ErrorCode.NOT_ALLOWED, "your account is deactivated", msg_id=message.envelope.msg_id)
        return message, payload

    def _check(self, arrival: Arrival, sender: str, received_at: int, charge: Charge) -> AcceptedMessage:
        if arrival.is_oversized:
            raise TlimError(ErrorCode.FIELD_INVALID, f"the stanza is over {MAX_STANZA_BYTES} bytes", field="body")
        return AcceptedMessage(
            sender=sender,
            reply_to=arrival.reply_to,
            stanza_id=arrival.stanza_id,
            location=arrival.location,
            received_at=received_at,
            envelope=read_envelope(arrival.text, sender, charge),
            via=self._via,
        )

    def _publish(
        self, arrival: Arrival, message: AcceptedMessage, payload: bytes, read_at: float, span: TraceSpan
    ) -> None:
        envelope = message.envelope
        subject = subject_in(envelope.msg_type, envelope.conversation_id)
        span.note(msg_id=envelope.msg_id, msg_type=envelope.msg_type.value)
        taken = Taken(arrival, envelope.msg_id, len(payload), read_at, span)
        # Without a message id: a resend has to reach the store, which answers it (docs/decisions/resend.md).
        future = self._publisher.publish_soon(subject, payload, headers=span.headers)
        self._in_flight += 1
        self._bytes_in_flight += len(payload)
        self._is_full = self._in_flight >= self._limit or self._bytes_in_flight >= MAX_BYTES_IN_FLIGHT
        future.add_done_callback(partial(self._on_answer, taken))

    def _on_answer(self, taken: Taken, future: asyncio.Future[PubAck]) -> None:
        failure = future.exception()
        if failure is None:
            self._metrics.accepted(taken.msg_id, time.monotonic() - taken.read_at, taken.span)
            self._failed_at = float("-inf")
        else:
            if not isinstance(failure, Unavailable):
                trace = trace_of(taken.span.traceparent)
                logger.error("a message could not be published", msg_id=taken.msg_id, exc_info=failure, **trace)
            self._failed_at = time.monotonic()
            detail = "the server could not process it now, send it again"
            self._refuse(taken.arrival, TlimError(ErrorCode.UNAVAILABLE, detail, msg_id=taken.msg_id), taken.span)
        self._release(taken.size)

    def _release(self, size: int) -> None:
        self._in_flight -= 1
        self._bytes_in_flight -= size
        is_low = self._in_flight <= self._limit // 2 and self._bytes_in_flight <= MAX_BYTES_IN_FLIGHT // 2
        if self._is_full and is_low:
            self._is_full = False
            self._read()
        elif not self._in_flight:
            self._look_at_door()

    def _refuse(self, arrival: Arrival, error: TlimError, span: TraceSpan) -> None:
        self._metrics.refused(error.msg_id, error.code.value, span)
        try:
            self._door.send(write_error(error, arrival.reply_to, arrival.stanza_id, self._addresses))
        except Unavailable:  # no connection: the sender gets no answer, and sends again after a time-out
            trace = trace_of(span.traceparent)
            logger.debug("a refusal could not be sent", code=error.code, msg_id=error.msg_id, **trace)

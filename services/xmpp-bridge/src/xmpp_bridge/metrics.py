"""What xmpp-bridge counts, and which steps of messages it notes."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext

from tlim_protocol.events import OutEvent, StoredMessage
from tlim_runtime.consumer import Incoming
from tlim_runtime.measures import MESSAGE_SECONDS, ConsumerMetrics, LimitMetrics, StageTimes
from tlim_runtime.metrics import Metrics
from tlim_runtime.reports import now_ms
from tlim_runtime.tracing import Stage, TraceSpan, in_hand, named
from tlim_runtime.trail import Passed


class BridgeMetrics:
    """The metrics of one process, registered with its application's metrics; its parts share them."""

    def __init__(self, metrics: Metrics) -> None:
        self._trail, self._tracing = metrics.trail, metrics.tracing
        self._times = StageTimes(metrics, Stage.ACCEPT, Stage.DELIVER)
        self._whole = metrics.histogram(
            "tlim_message_end_to_end_duration_seconds",
            "From the sender's stanza to the receivers' at the XMPP server; of a batch, the one that waited longest",
            buckets=MESSAGE_SECONDS,
        )
        inbound = metrics.counter("tlim_bridge_inbound_total", "Messages from clients, by outcome", ("outcome",))
        self._accepted = inbound.labels("accepted")
        self._refused = inbound.labels("refused")
        self.ignored = inbound.labels("ignored")
        self.in_flight = metrics.gauge("tlim_bridge_in_flight", "Messages that JetStream has not acknowledged")
        self.stanzas = metrics.counter("tlim_bridge_stanzas_total", "Stanzas sent to the XMPP server")
        self.batch_seconds = metrics.histogram(
            "tlim_bridge_batch_duration_seconds", "From a batch of deliveries to the barrier's answer"
        )
        self.missed = metrics.counter("tlim_bridge_missed_total", "Messages sent to people who had missed them")
        self.shards = metrics.gauge(
            "tlim_bridge_shards",
            "1 for each delivery shard that this bridge has, once it knows who is present",
            ("shard",),
        )
        self.people_present = metrics.gauge(
            "tlim_bridge_people_present", "People of its shards with at least one session"
        )
        self.catch_ups_waiting = metrics.gauge("tlim_bridge_catch_ups_waiting", "People whose catch-up has not begun")
        self.connection = metrics.gauge("tlim_xmpp_connection_up", "1 while there is a connection to the XMPP server")
        self.certificate = metrics.gauge(
            "tlim_certificate_expiry_timestamp_seconds",
            "When a certificate ends that clients are shown (Unix time): of xmpp, of gateway",
            ("certificate",),
        )

    def accepted(self, msg_id: str, seconds: float, span: TraceSpan) -> None:
        """Note a message that JetStream has, and how long after its stanza was read."""
        self._accepted.inc()
        self._times.passed(Stage.ACCEPT, seconds)
        self._trail.note(Passed.ACCEPTED, (msg_id,), now_ms(), named(span))
        span.end()

    def refused(self, msg_id: str | None, code: str, span: TraceSpan) -> None:
        """Note a message that is not taken; its msg_id, if it could be read."""
        self._refused.inc()
        if msg_id is not None:
            span.note(msg_id=msg_id)
        span.end(code)
        if msg_id is not None:
            self._trail.note(Passed.REFUSED, (msg_id,), now_ms(), code)

    def in_hand(self, messages: Sequence[Incoming]) -> AbstractContextManager[None]:
        """Have the traces of these messages show what is asked while entered."""
        return in_hand([message.traceparent for message in messages]) if self._tracing.is_on else nullcontext()

    def delivered(
        self, batch: Sequence[tuple[Incoming, OutEvent]], consumer: str, begun: int, later: Collection[int] = ()
    ) -> None:
        """Note what the XMPP server has taken over, except what is still in the slow lane (places in the stream).

        `begun` is when the bridge began with these messages, in epoch milliseconds.
        """
        now = now_ms()
        done = [(message, event) for message, event in batch if message.stream_seq not in later]
        if not done:
            return
        self._times.passed(Stage.DELIVER, (now - done[0][0].received_at) / 1000)
        read = [event.received_at for _, event in done if isinstance(event, StoredMessage) and event.received_at]
        if read:
            self._whole.observe(max(now - min(read), 0) / 1000)
        self._trail.note(Passed.DELIVERED, [msg_id_of(event) for _, event in done], now, consumer)
        if self._tracing.is_on:
            self._trace(done, begun, now)

    def _trace(self, done: Sequence[tuple[Incoming, OutEvent]], begun: int, now: int) -> None:
        batch = self._tracing.batch(Stage.DELIVER, (message.traceparent for message, _ in done), begun)
        for message, event in done:
            if message.traceparent is not None:
                span = self._tracing.begin(Stage.DELIVER, message.traceparent, batch=batch, at=begun)
                span.note(msg_id=msg_id_of(event))
                span.end(at=now)
        batch.end(at=now)


def msg_id_of(event: OutEvent) -> str:
    """Return the msg_id of the message that an event is about."""
    return event.envelope.msg_id if isinstance(event, StoredMessage) else event.msg_id


def declare(metrics: Metrics) -> None:
    """Register all metrics of this service; for the page of all metrics."""
    BridgeMetrics(metrics)
    ConsumerMetrics(metrics, "")
    LimitMetrics(metrics)

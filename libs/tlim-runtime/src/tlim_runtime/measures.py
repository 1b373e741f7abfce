"""The metrics that several services have: of a consumer, of an outbox, of a database, and how long messages take."""

from collections.abc import Callable

from tlim_protocol.dead_letters import DeadCause

from tlim_runtime.metrics import Metrics
from tlim_runtime.tracing import Stage

MESSAGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""From a message on an idle system to an outage of five minutes."""


class StageTimes:
    """How long messages take in the stages of one service."""

    def __init__(self, metrics: Metrics, *stages: Stage) -> None:
        histogram = metrics.histogram(
            "tlim_message_stage_duration_seconds",
            "How long messages take in each stage; of a batch, the one that waited longest",
            ("stage",),
            MESSAGE_SECONDS,
        )
        self._stages = {stage: histogram.labels(stage.value) for stage in stages}

    def passed(self, stage: Stage, seconds: float) -> None:
        """Note a message that has passed a stage. Two clocks may differ by a few milliseconds: then it is 0."""
        self._stages[stage].observe(max(seconds, 0.0))


class ConsumerMetrics:
    """What is known of a durable consumer while this process has it."""

    def __init__(self, metrics: Metrics, durable: str) -> None:
        self._durable = durable
        self._behind = metrics.gauge(
            "tlim_consumer_lag_messages",
            "Messages not acknowledged, by consumer; looked at every 5 s",
            ("consumer",),
        )
        self._dead = metrics.counter(
            "tlim_dead_letters_total",
            "Messages that can never be processed, by cause",
            ("consumer", "cause"),
        )
        for cause in DeadCause:  # a rate sees the first one only if there was a 0 before it
            self._dead.labels(durable, cause.value)

    def started(self, behind: Callable[[], int]) -> None:
        """Tell from now on how far the consumer is behind."""
        self._behind.labels(self._durable).set_function(behind)

    def stopped(self) -> None:
        """Tell it no more: another process may have the consumer."""
        if (self._durable,) in self._behind._metrics:  # prometheus_client raises for what is not there
            self._behind.remove(self._durable)

    def buried(self, cause: DeadCause) -> None:
        """Note a dead letter."""
        self._dead.labels(self._durable, cause.value).inc()


class OutboxMetrics:
    """How many events wait in a service's outbox."""

    def __init__(self, metrics: Metrics) -> None:
        self._rows = metrics.gauge(
            "tlim_outbox_rows", "Events in the outbox, up to 10,000: waiting, or refused by NATS for ever", ("state",)
        )

    def note(self, waiting: int, refused: int) -> None:
        """Note how many there are."""
        self._rows.labels("waiting").set(waiting)
        self._rows.labels("refused").set(refused)


class LimitMetrics:
    """How much instances tell each other of what they count for rate limits."""

    def __init__(self, metrics: Metrics) -> None:
        counts = metrics.counter(
            "tlim_limit_counts_total",
            "Counts for rate limits, by key: told to other instances, heard from them, or lost while NATS was away",
            ("outcome",),
        )
        self._told, self._heard, self._lost = (counts.labels(outcome) for outcome in ("told", "heard", "lost"))

    def told(self, keys: int) -> None:
        """Note what the others were told."""
        self._told.inc(keys)

    def heard(self, keys: int) -> None:
        """Note what another one has told."""
        self._heard.inc(keys)

    def lost(self, keys: int) -> None:
        """Note what nobody was told, because NATS was away."""
        self._lost.inc(keys)


class DatabaseMetrics:
    """How large a service's database is."""

    def __init__(self, metrics: Metrics) -> None:
        self._bytes = metrics.gauge("tlim_database_size_bytes", "Size of the service's database in PostgreSQL")

    def note(self, size: int) -> None:
        """Note the size in bytes."""
        self._bytes.set(size)

"""What message-store counts."""

from tlim_protocol.errors import ErrorCode
from tlim_runtime.metrics import Metrics

_BATCH_SIZES = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)


class StoreMetrics:
    """The counters of one process, registered with its application's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._stored = metrics.counter("tlim_message_store_stored_total", "Messages stored, resends not counted")
        self._rejected = metrics.counter("tlim_message_store_rejected_total", "Messages refused, by code", ("code",))
        self._dead = metrics.counter(
            "tlim_message_store_dead_lettered_total", "Payloads that could not be stored at all"
        )
        self._batches = metrics.histogram(
            "tlim_message_store_batch_messages", "Messages per batch", buckets=_BATCH_SIZES
        )
        self._lag = metrics.gauge(
            "tlim_message_store_publication_lag_messages", "Committed seqs that are not yet published"
        )
        self._unindexed = metrics.gauge(
            "tlim_message_store_search_lag_messages", "Committed seqs that search does not find yet"
        )
        self._leading = metrics.gauge(
            "tlim_message_store_leading", "1 while this instance stores, 0 while it stands by"
        )

    def batch(self, size: int, dead: int) -> None:
        """Note a finished batch: its size, and how many of it were dead-lettered."""
        self._batches.observe(size)
        self._dead.inc(dead)

    def stored(self, count: int) -> None:
        """Note newly stored messages."""
        self._stored.inc(count)

    def rejected(self, code: ErrorCode) -> None:
        """Note a refused message."""
        self._rejected.labels(code=code.value).inc()

    def lag(self, seqs: int) -> None:
        """Note how far the published seq is behind the newest committed one."""
        self._lag.set(seqs)

    def unindexed(self, seqs: int) -> None:
        """Note how far the search index is behind the log."""
        self._unindexed.set(seqs)

    def leading(self, leads: bool) -> None:
        """Note whether this instance is the leader."""
        self._leading.set(leads)

"""What session-api counts, besides what every service does."""

from tlim_runtime.measures import DatabaseMetrics, LimitMetrics, OutboxMetrics
from tlim_runtime.metrics import Metrics


class SessionMetrics:
    """The metrics of one process, registered with its application's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._backup = metrics.gauge(
            "tlim_backup_last_success_timestamp_seconds", "When the last backup was complete (Unix time); 0: never"
        )

    def last_backup(self, at: int | None) -> None:
        """Note when the last backup was complete, in epoch milliseconds; None: never."""
        self._backup.set(0 if at is None else at / 1000)


def declare(metrics: Metrics) -> None:
    """Register all metrics of this service; for the page of all metrics."""
    SessionMetrics(metrics)
    OutboxMetrics(metrics)
    DatabaseMetrics(metrics)
    LimitMetrics(metrics)

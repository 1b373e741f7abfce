"""The metrics of file-api."""

from tlim_runtime.measures import DatabaseMetrics, LimitMetrics, OutboxMetrics
from tlim_runtime.metrics import Metrics

from file_api.files import Scan


class FileMetrics:
    """The counters of one process, registered with its application's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._scans = metrics.counter("tlim_file_api_scans_total", "Scans for viruses, by outcome", ("outcome",))
        self._failures = metrics.counter("tlim_file_api_scan_failures_total", "Scans that have to be tried again")

    def scanned(self, outcome: Scan) -> None:
        """Note a scan that found something, or nothing."""
        self._scans.labels(outcome.value).inc()

    def not_scanned(self) -> None:
        """Note a scan that failed. When only this counter rises, files stay in quarantine."""
        self._failures.inc()


def declare(metrics: Metrics) -> None:
    """Register all metrics of this service; for the page of all metrics."""
    FileMetrics(metrics)
    OutboxMetrics(metrics)
    DatabaseMetrics(metrics)
    LimitMetrics(metrics)

"""What message-store counts."""

from collections.abc import Collection, Mapping, Sequence

from tlim_protocol.errors import ErrorCode
from tlim_protocol.streams import STORE_GROUPS
from tlim_runtime.measures import ConsumerMetrics, DatabaseMetrics, StageTimes
from tlim_runtime.metrics import Metrics
from tlim_runtime.tracing import Stage
from tlim_runtime.trail import Passed

from message_store.shares import UPKEEP
from message_store.traces import BatchTraces
from message_store.values import ArrivedMessage, Item

_BATCH_SIZES = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)


class StoreMetrics:
    """The counters of one process, registered with its application's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._trail = metrics.trail
        self.traces = BatchTraces(metrics.tracing)
        self._times = StageTimes(metrics, Stage.STORE, Stage.PUBLISH)
        self._size = DatabaseMetrics(metrics)
        self._stored = metrics.counter(
            "tlim_message_store_stored_total", "Messages stored, by type; resends not counted", ("msg_type",)
        )
        self._rejected = metrics.counter("tlim_message_store_rejected_total", "Messages refused, by code", ("code",))
        self._batches = metrics.histogram(
            "tlim_message_store_batch_messages", "Messages per batch", buckets=_BATCH_SIZES
        )
        self._lag = metrics.gauge(
            "tlim_message_store_publication_lag_messages", "Committed seqs that are not yet published"
        )
        self._unindexed = metrics.gauge(
            "tlim_message_store_search_lag_messages", "Committed seqs that search does not find yet"
        )
        self._groups = metrics.gauge(
            "tlim_message_store_groups", f"Groups of shards whose messages this instance stores, of {STORE_GROUPS}"
        )
        self._upkeep = metrics.gauge(
            "tlim_message_store_upkeep", "1 while this instance looks after partitions, search and gathered receipts"
        )
        self._mailboxes = metrics.gauge(
            "tlim_message_store_mailbox_rows", "People whose mailbox is known; an estimate when there are many"
        )
        self._drift = metrics.gauge(
            "tlim_unread_drift",
            "Unread messages by which the list of conversations differs from a plain count, in a sample; must be 0",
        )
        self._streams = {
            what: metrics.gauge(f"tlim_stream_{what}", documentation, ("stream",))
            for what, documentation in (
                ("messages", "Messages in a stream of JetStream"),
                ("bytes", "Bytes in a stream of JetStream"),
                ("limit_bytes", "Bytes that a stream of JetStream may have"),
            )
        }

    def batch(self, size: int) -> None:
        """Note a finished batch."""
        self._batches.observe(size)

    def committed(self, items: Sequence[Item]) -> None:
        """Note that what became of these items of the batch in hand is committed now."""
        self.traces.committed(items)

    def recorded(self, items: Sequence[Item], committed: int, published: int) -> None:
        """Note the times of items that were committed together, in epoch milliseconds."""
        self.traces.published()
        messages = [item for item in items if isinstance(item, ArrivedMessage)]
        if not messages:
            return
        self._times.passed(Stage.STORE, (committed - min(message.arrived_at for message in messages)) / 1000)
        self._times.passed(Stage.PUBLISH, (published - committed) / 1000)
        msg_ids = [message.envelope.msg_id for message in messages]
        self._trail.note(Passed.READ, msg_ids, [message.received_at for message in messages])
        self._trail.note(Passed.FETCHED, msg_ids, [message.arrived_at for message in messages])
        self._trail.note(Passed.COMMITTED, msg_ids, committed)
        self._trail.note(Passed.PUBLISHED, msg_ids, published)

    def stored(self, types: Mapping[str, int]) -> None:
        """Note newly stored messages: how many of each type."""
        for msg_type, count in types.items():
            self._stored.labels(msg_type).inc(count)

    def rejected(self, code: ErrorCode) -> None:
        """Note a refused message."""
        self._rejected.labels(code=code.value).inc()

    def lag(self, seqs: int) -> None:
        """Note how far the published seq is behind the newest committed one."""
        self._lag.set(seqs)

    def unindexed(self, seqs: int) -> None:
        """Note how far the search index is behind the log."""
        self._unindexed.set(seqs)

    def has(self, parts: Collection[int]) -> None:
        """Note which parts of the work this instance has (shares.py)."""
        self._upkeep.set(UPKEEP in parts)
        self._groups.set(len({*parts} - {UPKEEP}))

    def stream(self, name: str, messages: int, size: int, limit: int) -> None:
        """Note how full a stream is; sizes in bytes."""
        for what, value in (("messages", messages), ("bytes", size), ("limit_bytes", limit)):
            self._streams[what].labels(name).set(value)

    def resigned(self) -> None:
        """Forget what only the upkeep counts: another instance counts it now."""
        for gauge in self._streams.values():
            gauge.clear()
        for number in (self._unindexed, self._drift):
            number.set(0)

    def kept(self, size: int, mailboxes: int) -> None:
        """Note the size of the database in bytes, and how many mailboxes there are."""
        self._size.note(size)
        self._mailboxes.set(mailboxes)

    def drift(self, messages: int) -> None:
        """Note by how much two ways to count unread messages differ."""
        self._drift.set(messages)


def declare(metrics: Metrics) -> None:
    """Register all metrics of this service; for the page of all metrics."""
    StoreMetrics(metrics)
    ConsumerMetrics(metrics, "")

"""Publishing committed rows, and finding what is still to be published after a crash or a loss in JetStream."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from tlim_protocol.body import Body
from tlim_protocol.envelope import Envelope
from tlim_protocol.events import OutEvent, StoredMessage
from tlim_protocol.lenient import read_strict
from tlim_protocol.registry import MsgType
from tlim_runtime.broker import Broker
from tlim_runtime.logging import get_logger
from tlim_runtime.outages import BrokerUnavailable
from tlim_runtime.pulse import beat, held

from message_store.metrics import StoreMetrics
from message_store.notices import SERVER, in_the_name_of, receiver_of
from message_store.pieces import written_out
from message_store.publication_repository import PublicationTables
from message_store.stream_end import Newest, newest_in
from message_store.values import DeliveredRow, LogRow, ReadRow

logger = get_logger(__name__)

LOSS_WINDOW_MS = 10 * 60 * 1000
"""When the stream is lost, messages of the last 10 minutes are published again. JetStream syncs to disk every 2
minutes, and consumers follow within seconds. So older messages have been delivered, and are not sent again."""

PAGE = 100
"""Rows read back at a time: few, as a row to a large group names thousands of people."""

NO_END = 2**63 - 1  # the largest seq of all


def starting_point(noted: int, newest: Newest, before_window: int) -> int:
    """Return the seq after which messages have to be published (again).

    Everything up to `noted` was published once. `before_window` is the last seq older than LOSS_WINDOW_MS. When the
    stream is ahead of `noted`, we still begin at `noted`: the stream may have refused a message in between.
    """
    if newest.is_fresh:
        return min(noted, before_window)
    return noted if newest.seq is None else min(noted, newest.seq)


def delivery_of(found: DeliveredRow) -> StoredMessage | None:
    """Return the delivery of a row read back from the table, without a confirmation to its sender.

    None when there is nothing to deliver: the row has no recipients, or its author has recalled it since.
    """
    if found.is_recalled or not found.recipients:
        return None
    return delivery_from(found.row, cast("Body", read_strict(found.row.body)), found.recipients)


def delivery_from(row: LogRow | ReadRow, body: Body, recipients: Sequence[str]) -> StoredMessage:
    """Return the delivery of a row with this body to these people, without a confirmation to its sender."""
    envelope = Envelope(
        version=row.version,
        msg_from=in_the_name_of(body) if row.sender == SERVER else row.sender,
        msg_to=receiver_of(row),
        msg_id=row.msg_id,
        msg_type=MsgType(row.msg_type),
        msg_time=row.msg_time,
        body=body,
    )
    return StoredMessage(
        seq=row.seq,
        stored_at=row.stored_at,
        recipients=list(recipients),
        envelope=envelope,
        tells_sender=row.sender != SERVER,  # a gathered receipt is no message of the reader in whose name it comes
    )


class Publication:
    """Keeps TLIM_OUT in step with the table. One store publishes at a time, in the order of commits."""

    def __init__(self, tables: PublicationTables, broker: Broker, metrics: StoreMetrics) -> None:
        self._tables = tables
        self._broker = broker
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._is_certain = False
        self._seqs: Sequence[int] = ()
        self._is_next = False

    @property
    def is_certain(self) -> bool:
        """Whether table and stream were compared, and nothing has happened since that needs another comparison."""
        return self._is_certain

    def doubt(self) -> None:
        """Publish nothing new before `restore`: the stream may have lost its last seconds, or may lack rows."""
        self._is_certain = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Enter alone: nobody else of this process commits or publishes inside.

        After a failure inside, this store publishes nothing new before `restore`: a row may be committed, and what
        comes next would be published past it. Other stores may go on.
        """
        async with held(self._turn):
            try:
                yield
            except BaseException:
                self.doubt()
                await self._tables.leave_publication()
                raise

    async def restore(self) -> None:
        """Compare table and stream, and publish from the table what the stream lacks. Call it before any new message.

        Afterwards everything that is committed is published. Raises DatabaseUnavailable or BrokerUnavailable.
        """
        async with self.turn():
            self._is_certain = True  # set before we look: if the connection breaks meanwhile, it becomes false again
            await self._tables.enter_publication()
            noted = await self._tables.published()
            newest = await newest_in(self._broker)
            before_window = await self._tables.last_seq_before(LOSS_WINDOW_MS) if newest.is_fresh else noted
            start = starting_point(noted, newest, before_window)
            if start < noted:  # at once: the stream may refuse a row and take the next one before we end
                await self._tables.save_published(start, leave=False)
            reached = await self._catch_up(start, NO_END)
            await self._tables.save_published(max(noted, reached), leave=True)  # the last seqs may have no rows
            self._metrics.lag(0)

    def require_certainty(self) -> None:
        """Raise BrokerUnavailable when `restore` has to come before anything new; inside `turn`."""
        if not self._is_certain:
            raise BrokerUnavailable("something failed on the way: table and stream have to be compared first")

    async def follow(self, seqs: Sequence[int]) -> None:
        """Wait until whoever has committed before us has published. Call it last in the transaction that drew `seqs`.

        Afterwards nobody else commits until `publish`, so what is committed together is published together. Raises
        DatabaseUnavailable, or BrokerUnavailable when `restore` has to come before.
        """
        self.require_certainty()
        self._seqs = seqs
        self._is_next = await self._tables.follow(seqs[0])

    async def publish(self, events: Sequence[OutEvent]) -> None:
        """Publish the events of the transaction in order. When all are acknowledged, note it and let others publish.

        Call it inside `turn`. Raises BrokerUnavailable or DatabaseUnavailable: then `restore` has to come before the
        next batch.
        """
        first, last = self._seqs[0], self._seqs[-1]
        self._metrics.lag(last - first + 1)
        if not self._is_next:  # seqs were drawn in vain, or a store has committed, and died before it published
            await self._catch_up(await self._tables.published(), first)
        await self._send(events)
        self._metrics.lag(0)
        await self._tables.save_published(last, leave=True)

    async def _send(self, events: Sequence[OutEvent]) -> None:
        self.require_certainty()
        for portion in written_out(events, self._broker.max_payload, self._metrics.traces.headers_of):
            await self._broker.publish_batch(portion)
        self.require_certainty()

    async def _catch_up(self, seq: int, before: int) -> int:
        """Publish the rows after `seq` and before `before` from the table; return up to which seq all is published."""
        while rows := await self._tables.messages_after(seq, PAGE, before):
            msg_ids = [found.row.msg_id for found in rows]
            logger.warning("publishing from the table", first_seq=rows[0].row.seq, rows=len(rows), msg_ids=msg_ids)
            deliveries = map(delivery_of, rows)
            await self._send([delivery for delivery in deliveries if delivery is not None])
            seq = rows[-1].row.seq
            await self._tables.save_published(seq, leave=False)
            beat()  # after a loss there can be pages for many minutes
        return seq

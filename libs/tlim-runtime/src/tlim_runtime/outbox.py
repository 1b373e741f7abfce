"""The transactional outbox: an event is a row in the same transaction as its cause, published after the commit.

Events are published in the order of the row ids. Two transactions that change the same thing must lock it before they
add their events, as session-api locks the session's row. Then the order of the ids is the order of the changes.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from tlim_runtime.background import Background, Repeated
from tlim_runtime.broker import ACK_TIMEOUT_S, Broker, Outgoing
from tlim_runtime.database import Database
from tlim_runtime.logging import get_logger
from tlim_runtime.measures import DatabaseMetrics, OutboxMetrics
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from tlim_runtime.pulse import waiting
from tlim_runtime.tables import any_of
from tlim_runtime.tracing import CURRENT, headers_with, trace_of

logger = get_logger(__name__)

POLL_S = 5.0
"""How often we look for rows of another instance that crashed. Our own rows are published at once."""

BATCH = 200

BATCH_BYTES = 4 * 1024 * 1024
"""A bound on the memory of one batch. An event of the largest groups is over 1 MB: 200 of these would be too much."""

FLUSH_TIMEOUT_S = 2.0
"""How long an HTTP answer waits for its event to be published. The row is safe already, so the client need not wait
for NATS any longer."""

PUBLISHED_TIMEOUT_S = ACK_TIMEOUT_S + 1
"""The same for an answer that may not leave before its event is published: long enough for the attempt to fail."""

_RETRY_S = 1.0

COUNT_EVERY_S = 15.0
"""As often as Prometheus asks."""

COUNT_TO = 10_000
"""More waiting rows are not counted: it is clear by then that nothing is published."""


class Outbox:
    """The outbox table of one service; declare it once: `OUTBOX = Outbox(Base.metadata)`."""

    def __init__(self, metadata: sa.MetaData) -> None:
        self.table = sa.Table(
            "outbox",
            metadata,
            sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
            sa.Column("subject", sa.Text, nullable=False),
            sa.Column("payload", sa.LargeBinary, nullable=False),
            sa.Column("message_id", sa.Text, nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
            sa.Column("refused", sa.Text),  # why NATS will never take it; the row is kept for the operator
            sa.Column("traceparent", sa.Text),  # of the request that caused it
        )
        self._insert = sa.insert(self.table)
        self._lock = sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"{self.table.name} relay")))

    async def add(self, session: AsyncSession, subject: str, payload: bytes, message_id: str) -> None:
        """Add an event to the session's transaction; call the relay's `flush` after the commit."""
        values = {"subject": subject, "payload": payload, "message_id": message_id, "traceparent": CURRENT.get()}
        await session.execute(self._insert, values)
        session.info["outbox"] = True

    async def withdraw(self, session: AsyncSession, message_id: str) -> bool:
        """Remove an event that is not published yet. Return False if its row is gone: treat it as published.

        Until the session's transaction ends, no event at all is published. So withdraw first, and commit soon.
        """
        await self.publish_alone(session)
        is_it = self.table.c.message_id == message_id
        return (
            await session.execute(sa.delete(self.table).where(is_it).returning(self.table.c.id))
        ).first() is not None

    async def publish_alone(self, session: AsyncSession) -> None:
        """Wait until no instance publishes, and keep all others from publishing until the transaction ends."""
        await session.execute(self._lock)


class OutboxRelay:
    """Publishes the committed events. Several instances of a service take turns through an advisory lock."""

    def __init__(self, database: Database, broker: Broker, outbox: Outbox, metrics: Metrics | None = None) -> None:
        self._database = database
        self._broker = broker
        self._outbox = outbox
        self._table = outbox.table
        self._oldest = _oldest(outbox.table)
        self._wake = asyncio.Event()
        self._waiters: list[asyncio.Future[bool]] = []
        self._background = Background("outbox relay", self._run)
        self._counting = Repeated("outbox count", self.count, COUNT_EVERY_S, at_once=False)
        metrics = metrics or Metrics()
        self._rows, self._size = OutboxMetrics(metrics), DatabaseMetrics(metrics)
        self._reason = ""
        self._is_silent = False  # the last round trip to NATS that ended was not answered
        self._asking = 0  # round trips that run

    async def start(self) -> None:
        """Begin to publish in the background, first the rows that a crash has left."""
        self._broker.on_reconnect(self._on_reconnect)
        self._background.start()
        self._counting.start()
        self._wake.set()

    async def stop(self) -> None:
        """Stop. Events that are not published yet stay in the table."""
        self._broker.forget_reconnect(self._on_reconnect)
        await self._counting.stop()
        await self._background.stop()
        _release(self._waiters, published=False)

    async def ping(self) -> None:
        """Raise with the reason while rows cannot be published; for Health.add."""
        if self._reason:
            raise BrokerUnavailable(self._reason)
        await self._background.ping()

    async def require_broker(self) -> None:
        """Raise BrokerUnavailable unless NATS answers now and the last attempt to publish succeeded.

        Each caller may hold a database connection while it waits. So after a round trip without an answer one caller
        at a time makes the next, and all others are refused at once.
        """
        await self.ping()
        if self._is_silent and self._asking:
            raise BrokerUnavailable("NATS has not answered")
        self._asking += 1
        try:
            await self._broker.ping()
        except Unavailable:
            self._is_silent = True
            raise
        finally:
            self._asking -= 1
        self._is_silent = False

    async def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Publish all events that are committed now. Return False if that takes longer: they are published later.

        Return False at once if the last attempt to publish failed.
        """
        if self._reason:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        try:
            done, _ = await asyncio.wait([waiter], timeout=timeout_s)
        finally:
            waiter.cancel()  # nobody waits any more: the next pass forgets it
        return bool(done) and waiter.result()

    async def count(self) -> None:
        """Count what waits, and what NATS refuses, for the metrics; raises DatabaseUnavailable."""
        some = sa.select(self._table.c.refused).limit(COUNT_TO).subquery()
        async with self._database.session() as session:
            total, refused = (await session.execute(sa.select(sa.func.count(), sa.func.count(some.c.refused)))).one()
        self._rows.note(total - refused, refused)
        self._size.note(await self._database.size())

    async def _run(self) -> None:
        while True:
            with waiting(), contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            self._wake.clear()
            waiters, self._waiters = self._waiters, []  # they committed before this pass: it sees their rows
            try:
                while await self._publish_some():
                    pass
            except Unavailable as error:
                self._fail(str(error))
            except Exception as error:
                logger.exception("outbox relay failed")
                self._fail(f"{type(error).__name__}: {error}")
            else:
                self._reason = ""
            _release(waiters, published=not self._reason)
            if self._reason:
                await asyncio.sleep(_RETRY_S)
                self._wake.set()

    async def _publish_some(self) -> bool:
        """Publish and delete the oldest rows in one transaction; return whether there may be more."""
        async with self._database.session() as session:
            await self._outbox.publish_alone(session)  # two instances at once would mix up the order
            rows = (await session.execute(self._oldest)).all()
            if not rows:
                return False
            await self._publish(session, rows)
        return len(rows) == BATCH or sum(len(row.payload) for row in rows) >= BATCH_BYTES

    async def _publish(self, session: AsyncSession, rows: Sequence[sa.Row[tuple[Any, ...]]]) -> None:
        """Publish rows and delete them. A row that NATS will never take stays, with the reason, and is passed over."""
        sendable: dict[int, Outgoing] = {}
        for row in rows:
            outgoing = Outgoing(row.subject, row.payload, row.message_id, headers_with(row.traceparent))
            objection = self._broker.objection(outgoing)
            if objection is None:
                sendable[row.id] = outgoing
                continue
            logger.error(
                "an event is never published",
                subject=row.subject,
                message_id=row.message_id,
                reason=objection,
                **trace_of(row.traceparent),
            )
            is_it = self._table.c.id == row.id
            await session.execute(sa.update(self._table).where(is_it).values(refused=objection))
        await self._broker.publish_batch(list(sendable.values()))
        await session.execute(sa.delete(self._table).where(self._table.c.id == any_of(sendable, sa.BigInteger)))

    def _fail(self, reason: str) -> None:
        if reason != self._reason:
            logger.warning("events wait in the outbox", reason=reason)
        self._reason = reason

    async def _on_reconnect(self) -> None:
        self._wake.set()


def _oldest(table: sa.Table) -> sa.Select[*tuple[Any, ...]]:
    """Return the query for the oldest rows: at most BATCH, and none after the row that reaches BATCH_BYTES."""
    waiting = sa.select(table).where(table.c.refused.is_(None))
    oldest = waiting.order_by(table.c.id).limit(BATCH).subquery()
    size = sa.func.octet_length(oldest.c.payload)
    before = sa.func.sum(size).over(order_by=oldest.c.id) - size
    measured = sa.select(oldest, before.label("before")).subquery()
    return sa.select(measured).where(measured.c.before < BATCH_BYTES).order_by(measured.c.id)


def _release(waiters: Sequence[asyncio.Future[bool]], *, published: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(published)

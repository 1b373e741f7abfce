"""The one place that acknowledges: a durable JetStream consumer read in batches, in strict order, for ever.

| outcome of the handler           | JetStream                                            |
|----------------------------------|------------------------------------------------------|
| Done: success, or a refusal that was answered | ack                                     |
| it raised: transient             | back-off, then delivery restarts after the last ack; readiness is red |
| Poison: cannot be understood     | copy to the dead-letter stream, then term            |
| Later: still being worked on     | nothing yet; other messages go on, and overtake it   |
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tlim_protocol.dead_letters import CAUSE_HEADER, REASON_HEADER, SUBJECT_HEADER, DeadCause, msg_id_in
from tlim_protocol.streams import ConsumerSpec
from tlim_protocol.subjects import subject_dead

from tlim_runtime.background import Background, Tasks
from tlim_runtime.broker import Broker
from tlim_runtime.delivery import Delivery
from tlim_runtime.logging import NAMED_IN_LOG, get_logger
from tlim_runtime.measures import ConsumerMetrics
from tlim_runtime.metrics import Metrics
from tlim_runtime.outages import BrokerUnavailable, Unavailable
from tlim_runtime.pull import MAX_BYTES, UNTOUCHED, PullError, PullSession, Weigh
from tlim_runtime.pulse import beat, waiting
from tlim_runtime.tracing import headers_with, trace_of, traces_of
from tlim_runtime.trimming import Trimmer

logger = get_logger(__name__)

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
"""The longest pause between two tries. A database restart takes seconds, so we are back soon after it. A long outage
causes no busy loop."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as the handler sees it; `stream_seq` is its place in the stream.

    `received_at` is when the broker received it, in epoch milliseconds on the clock of this process. A message that
    waited for an hour was received an hour ago, whatever the clocks of the broker and of the publisher say.
    """

    subject: str
    data: bytes
    stream_seq: int
    received_at: int
    traceparent: str | None = None
    """The step that published it, if it is of a trace."""
    weight: int = 0
    """What it counts as in a batch."""


@dataclass(frozen=True, slots=True)
class Done:
    """The message is dealt with: its effect is committed, or its sender was told why it is refused."""


@dataclass(frozen=True, slots=True)
class Poison:
    """The message can never be processed; `reason` is a sentence for the reader of the dead-letter stream."""

    reason: str
    cause: DeadCause = DeadCause.UNREADABLE


Verdict = Done | Poison
DONE = Done()


@dataclass(frozen=True, slots=True)
class Later:
    """The handler still works on the message, and the batches behind it need not wait.

    The handler sets `verdict`, or an exception: then delivery restarts after the last ack, as when a handler raises. If
    delivery restarts for another reason, `verdict` is cancelled: the message comes again, and the work must end. The
    handler may cancel it as well: then the message comes again when delivery restarts the next time.
    """

    verdict: asyncio.Future[Verdict]


Handler = Callable[[Sequence[Incoming]], Awaitable[Sequence[Verdict | Later]]]
"""Takes the messages of a batch in order and returns a verdict for each. Raises if the whole batch must come again."""

Prepare = Callable[[], Awaitable[None]]

Check = Callable[[], None]

Opened = Callable[[int], None]


class BatchConsumer:
    """Feeds a handler with batches of one durable consumer; at most one batch at a time, in stream order.

    A batch has at most `batch` messages, which `weigh` at most `most` together; as many wait behind it (pull.py).
    `prepare` is awaited before the first message whenever delivery starts: at start, after a reconnection to the
    broker, and after a failure. An exception of `prepare` counts as a transient failure. Only one process may consume a
    durable at a time. To keep the order we restart the delivery, which would repeat the messages of another process.
    `check` raises Unavailable when this process may not consume any more. It is called before delivery starts, and
    before each ack. `opened` is told each time up to which stream sequence messages had been delivered, of which some
    were not acknowledged and come again; 0: there is none. From start to stop, acknowledged messages are removed from
    the stream (trimming.py).
    """

    def __init__(
        self,
        broker: Broker,
        spec: ConsumerSpec,
        handle: Handler,
        *,
        batch: int = 500,
        most: int = MAX_BYTES,
        weigh: Weigh = len,
        prepare: Prepare | None = None,
        check: Check = lambda: None,
        opened: Opened = lambda _delivered: None,
        metrics: Metrics | None = None,
    ) -> None:
        self._broker = broker
        self._spec = spec
        self._handle = handle
        self._batch = min(batch, spec.max_ack_pending)
        self._most = most
        self._weigh = weigh
        self._prepare = prepare
        self._check = check
        self._opened = opened
        self._trimmer = Trimmer(broker, spec)
        self._metrics = ConsumerMetrics(metrics or Metrics(), spec.durable)
        self._session: PullSession | None = None
        self._unfinished = Tasks()
        self._first: int | None = None
        self._begun = UNTOUCHED
        self._background = Background(f"consumer {spec.durable}", self._run)
        self._stopping = False
        self._wake = asyncio.Event()
        self._failures = 0
        self._in_hand: Sequence[Delivery] = ()  # what the handler has, or failed on
        self._reason = "not started"
        self._last_behind = 0

    @property
    def healthy(self) -> bool:
        """Whether messages flow (or would, if there were any)."""
        return not self._reason

    @property
    def reason(self) -> str:
        """Why it is not healthy; empty when it is."""
        return self._reason

    async def ping(self) -> None:
        """Raise with the reason while unhealthy; for Health.add."""
        if self._reason:
            raise BrokerUnavailable(self._reason)
        await self._background.ping()
        await self._trimmer.ping()

    async def start(self) -> None:
        """Begin to consume in the background."""
        self._stopping = False
        self._reason = "starting"
        self._broker.on_reconnect(self._on_reconnect)
        self._background.start()
        self._trimmer.start()
        self._metrics.started(lambda: self._behind)

    async def stop(self) -> None:
        """Let the handler finish what it has, and acknowledge it, then stop; the rest is delivered after a restart."""
        self._stopping = True
        self._wake.set()
        if self._session is not None:
            self._session.close()
        self._broker.forget_reconnect(self._on_reconnect)
        await self._background.join()
        await self._trimmer.stop()
        self._metrics.stopped()
        self._reason = "stopped"

    async def abort(self) -> None:
        """Stop at once, also in the middle of a batch: this process may not work on. The batch is delivered again."""
        self._stopping = True
        await self._background.stop()
        await self.stop()

    def go_back(self, first: int | None) -> None:
        """Let all messages from the stream sequence `first` on be delivered again; None does nothing.

        The batch in the handler is not acknowledged and comes again as well. Messages that were removed from the
        stream do not come again.
        """
        if first is None:
            return
        self._first = first if self._first is None else min(first, self._first)
        if self._session is not None:
            self._session.give_up(f"delivery goes back to {self._first}")

    @property
    def going_back(self) -> int | None:
        """Where delivery will begin, if it was told to go back and has not begun since."""
        return self._first

    @property
    def _behind(self) -> int:
        if self._session is not None and self._session.behind is not None:
            self._last_behind = self._session.behind
        return self._last_behind

    async def _run(self) -> None:
        beat(first=True)  # so that also a first `prepare` that hangs is seen
        while not self._stopping:
            try:
                await self._consume()
            except (PullError, Unavailable) as error:
                self._note_failure(str(error))
            except Exception as error:  # any failure of a handler is transient: nothing may be lost
                first = self._in_hand[:NAMED_IN_LOG]
                msg_ids, traces = [msg_id_in(one.data) for one in first], traces_of(one.traceparent for one in first)
                logger.exception("the handler of a batch failed", durable=self._spec.durable, msg_ids=msg_ids, **traces)
                self._note_failure(f"{type(error).__name__}: {error}")
            await self._back_off()

    async def _consume(self) -> None:
        session = PullSession(self._broker, self._spec, self._batch, self._most, self._weigh)
        self._session = session
        try:
            first = self._first
            self._check()
            self._begun = await session.open(first, self._begun)
            self._opened(self._begun.delivered)
            if self._first == first:
                self._first = None
            if self._prepare is not None:
                await self._prepare()
            await session.begin()
            if session.behind == 0:  # what the handler failed on is gone: NATS has lost it
                self._in_hand = ()
            if not self._in_hand:  # after a failure we are healthy again only when that batch has passed
                self._recovered()
            while deliveries := await session.take():
                await self._process(session, deliveries)
                beat()
                self._recovered()
            with waiting():  # the handler has tasks for it
                await self._unfinished.join()
        finally:
            self._session = None
            try:
                await self._unfinished.close()
            finally:  # `abort` may cancel us just here, when a failure and its cause come together
                await session.release()

    async def _process(self, session: PullSession, deliveries: Sequence[Delivery]) -> None:
        batch = [Incoming(d.subject, d.data, d.stream_seq, d.received_at, d.traceparent, d.weight) for d in deliveries]
        self._in_hand = deliveries
        verdicts = await self._handle(batch)
        if len(verdicts) != len(batch):
            raise RuntimeError(f"the handler gave {len(verdicts)} verdicts for {len(batch)} messages")
        self._in_hand = ()
        for delivery, verdict in zip(deliveries, verdicts, strict=True):
            if isinstance(verdict, Later):
                self._unfinished.start(self._finish(session, delivery, verdict), f"{self._spec.durable}: later")
            else:
                await self._conclude(session, delivery, verdict)

    async def _finish(self, session: PullSession, delivery: Delivery, later: Later) -> None:
        try:
            await self._conclude(session, delivery, await later.verdict)
        except (PullError, Unavailable) as error:
            session.give_up(str(error))
        except Exception as error:  # any failure of a handler is transient, as above
            logger.exception("the handler of a message failed", durable=self._spec.durable, **_named(delivery))
            session.give_up(f"{type(error).__name__}: {error}")

    async def _conclude(self, session: PullSession, delivery: Delivery, verdict: Verdict) -> None:
        self._check()
        if isinstance(verdict, Poison):
            await self._bury(delivery, verdict)
            await session.terminate(delivery)
        else:
            await session.acknowledge(delivery)

    async def _bury(self, delivery: Delivery, poison: Poison) -> None:
        logger.error(
            "poison message",
            subject=delivery.subject,
            stream_seq=delivery.stream_seq,
            cause=poison.cause.value,
            reason=poison.reason,
            **_named(delivery),
        )
        await self._broker.publish(
            subject_dead(delivery.subject),
            delivery.data,
            f"dead:{self._spec.durable}:{delivery.stream_seq}",
            headers={
                REASON_HEADER: poison.reason,
                CAUSE_HEADER: poison.cause.value,
                SUBJECT_HEADER: delivery.subject,
                **headers_with(delivery.traceparent),
            },
        )
        self._metrics.buried(poison.cause)

    def _recovered(self) -> None:
        if self._failures:
            logger.info("consumer recovered", durable=self._spec.durable)
        self._failures = 0
        self._reason = ""

    def _note_failure(self, reason: str) -> None:
        if self._stopping:
            return
        self._failures += 1
        self._reason = reason
        logger.warning("consumer starts over", durable=self._spec.durable, reason=reason, failures=self._failures)

    async def _back_off(self) -> None:
        if self._stopping:
            return
        delay = min(BACKOFF_FIRST_S * 2 ** min(self._failures, 10), BACKOFF_MAX_S)
        self._wake.clear()
        with waiting(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    async def _on_reconnect(self) -> None:
        self._wake.set()


def _named(delivery: Delivery) -> dict[str, str | None]:
    """Return what a line of the log says of a message."""
    return {"msg_id": msg_id_in(delivery.data), **trace_of(delivery.traceparent)}

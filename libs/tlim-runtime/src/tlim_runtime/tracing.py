"""Traces: the steps of messages and requests as spans, for OpenTelemetry. This module is what services do without it.

`traceparent` (W3C Trace Context) names a trace, a span of it, and whether the trace is kept. It travels in the headers
of NATS messages, so that one trace follows a message from stanza to stanza, and shows what other services were asked on
its way. otlp.py, which makes real spans, is imported only if TLIM_TRACES_URL is set.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from enum import StrEnum
from types import MappingProxyType

from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware
from structlog.contextvars import bound_contextvars

TRACEPARENT = "traceparent"

Headers = Mapping[str, str]

NO_HEADERS: Headers = MappingProxyType({})


class Stage(StrEnum):
    """The steps of a message on its way from stanza to stanza: a label of metrics, and the name of a span."""

    ACCEPT = "accept"  # stanza read -> kept by JetStream
    STORE = "store"  # kept by JetStream -> committed in PostgreSQL
    PUBLISH = "publish"  # committed -> kept by JetStream for delivery
    DELIVER = "deliver"  # kept by JetStream for delivery -> taken over by the XMPP server


class TraceSpan:
    """A step of a message. This one is of no trace, and does nothing."""

    traceparent: str | None = None
    """What the next step continues; None if there is no trace."""

    @property
    def headers(self) -> Headers:
        """The headers of NATS with which another service continues the trace."""
        return headers_with(self.traceparent)

    def note(self, **values: str | int) -> None:
        """Say more about the step. The names get the prefix `tlim.`; no value names a person."""

    def end(self, failure: str = "", at: int | None = None) -> None:
        """End the step: now, or at a time in epoch milliseconds. `failure` says why it failed."""


NO_SPAN = TraceSpan()


class Tracing:
    """Makes the spans of a process. This one makes none: tracing is off."""

    is_on = False
    middleware: tuple[Middleware, ...] = ()

    def __init__(self) -> None:
        self.telemetry = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)
        """What FastAPI makes of requests by itself."""

    def begin(
        self, stage: Stage, parent: str | None, *, batch: TraceSpan = NO_SPAN, at: int | None = None
    ) -> TraceSpan:
        """Begin a step of one message in the trace of `parent` (a traceparent), or in a new one.

        It began now, or at a time in epoch milliseconds. `batch`: the span of the batch in which the message is.
        """
        del stage, parent, batch, at
        return NO_SPAN

    def batch(self, stage: Stage, parents: Iterable[str | None], at: int | None = None) -> TraceSpan:
        """Begin a step of a batch: a trace of its own, with a link to the trace of each message that has one.

        There is no span if no trace of a message is kept.
        """
        del stage, parents, at
        return NO_SPAN

    def ask(self, subject: str) -> TraceSpan:
        """Begin a question to another service, for what is in hand (CURRENT, in_hand).

        The question for several messages is a trace of its own, with a link to each that is kept. There is no span if
        nothing is in hand whose trace is kept.
        """
        del subject
        return NO_SPAN

    def answer(self, subject: str, parent: str | None) -> TraceSpan:
        """Begin the answer to a question that came with this traceparent; there is no span without one."""
        del subject, parent
        return NO_SPAN

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send spans away while entered."""
        yield


OFF = Tracing()

CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The traceparent of the HTTP request, or of the question of another service, in hand; None if it has no trace."""

IN_HAND: ContextVar[Sequence[str | None]] = ContextVar("traceparents", default=())
"""The traceparents of the messages in hand (in_hand)."""


@contextmanager
def in_hand(traceparents: Sequence[str | None]) -> Iterator[None]:
    """Have the traces of these messages show what is asked while entered."""
    token = IN_HAND.set(traceparents)
    try:
        yield
    finally:
        IN_HAND.reset(token)


def ended(span: TraceSpan) -> AbstractContextManager[None]:
    """End a step when the block ends: as failed, if an exception leaves it."""
    return nullcontext() if span is NO_SPAN else _ended(span)


@contextmanager
def _ended(span: TraceSpan) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        span.end(type(error.__cause__ or error).__name__)
        raise
    span.end()


def continued(span: TraceSpan) -> AbstractContextManager[None]:
    """Do what `ended` does; what is logged, asked and published meanwhile belongs to this step."""
    return nullcontext() if span is NO_SPAN else _continued(span)


@contextmanager
def _continued(span: TraceSpan) -> Iterator[None]:
    token = CURRENT.set(span.traceparent)
    try:
        with ended(span), logged(span):
            yield
    finally:
        CURRENT.reset(token)


def logged(span: TraceSpan) -> AbstractContextManager[object]:
    """Put the trace of a step into all lines of the log while entered."""
    return bound_contextvars(**trace_of(span.traceparent))


def named(span: TraceSpan) -> str:
    """Return the trace of a step for a person who looks for it; empty without one."""
    return "" if span.traceparent is None else f"trace {trace_of(span.traceparent)['trace_id']}"


def headers_with(traceparent: str | None) -> Headers:
    """Return the headers of NATS that carry a traceparent; none without one."""
    return NO_HEADERS if traceparent is None else {TRACEPARENT: traceparent}


def trace_of(traceparent: str | None) -> dict[str, str]:
    """Return what a line of the log says of a trace: its `trace_id`; nothing without a trace."""
    return {} if traceparent is None else {"trace_id": traceparent.split("-")[1]}


def traces_of(traceparents: Iterable[str | None]) -> dict[str, list[str]]:
    """Return what a line of the log says of several traces: their `trace_ids`; nothing without a trace."""
    trace_ids = [trace_id for traceparent in traceparents for trace_id in trace_of(traceparent).values()]
    return {"trace_ids": trace_ids} if trace_ids else {}

"""Real spans, sent to a collector with OTLP over HTTP. Imported only if tracing is on (tracing.py).

What OpenTelemetry's SDK reads from the environment by itself counts as well, such as OTEL_RESOURCE_ATTRIBUTES,
OTEL_BSP_MAX_QUEUE_SIZE and OTEL_EXPORTER_OTLP_CERTIFICATE.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from fastapi.telemetry import TelemetryConfig
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, get_current_span
from opentelemetry.trace import Span as ApiSpan
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from tlim_runtime.health import PROBES
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.tracing import CURRENT, IN_HAND, NO_SPAN, TRACEPARENT, Stage, TraceSpan, Tracing, headers_with

EXPORT_TIMEOUT_S = 5.0
"""A collector is near. What it does not take in this time is dropped."""

CLOSE_S = 2.0
"""How long the end of the process waits for the last spans. The supervisor kills it if all steps take 30 s."""

MOST_LINKS = 2_000
"""More messages than a batch has; the SDK's own bound is 128."""

QUIET_S = 60.0
"""A collector that is away is logged once in this time; the SDK would log it every few seconds."""

_KINDS = {
    Stage.ACCEPT: SpanKind.PRODUCER,
    Stage.STORE: SpanKind.CONSUMER,
    Stage.PUBLISH: SpanKind.PRODUCER,
    Stage.DELIVER: SpanKind.CONSUMER,
}
_ADDRESS = frozenset({"url.path", "url.query"})
_PROPAGATOR = TraceContextTextMapPropagator()
_SCOPE = "tlim"


class OtlpTracing(Tracing):
    """Makes spans, and sends them to `traces_url` in the background. Spans that find the queue full are dropped."""

    is_on = True

    def __init__(self, settings: ServiceSettings, version: str) -> None:
        super().__init__()
        names = {SERVICE_NAMESPACE: "tlim", SERVICE_NAME: settings.service, SERVICE_VERSION: version}
        resource = Resource.create(names)
        share = ParentBasedTraceIdRatio(settings.traces_share)
        limits = SpanLimits(max_links=MOST_LINKS)
        self._messages = TracerProvider(share, resource, shutdown_on_exit=False)
        self._messages.add_span_processor(_WithoutAddresses())
        self._batches = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=limits)
        self._url, secret = str(settings.traces_url), settings.traces_authorization
        self._headers = {} if secret is None else {"Authorization": secret.get_secret_value()}
        self.middleware = (Middleware(RequestTrace),)
        self.telemetry = TelemetryConfig(
            tracing=True,
            tracer_provider=self._messages,
            metrics=False,
            logs=False,
            operation_spans=False,
            auto_configure=False,
            exclude=lambda scope: scope.get("path") in PROBES,
        )

    def begin(
        self, stage: Stage, parent: str | None, *, batch: TraceSpan = NO_SPAN, at: int | None = None
    ) -> TraceSpan:
        """Begin a step of one message; see Tracing."""
        links = () if batch.traceparent is None else (Link(_context_of(batch.traceparent)),)
        tracer = self._messages.get_tracer(_SCOPE)
        return _Recorded(
            tracer.start_span(stage.value, _parent(parent), _KINDS[stage], links=links, start_time=_ns(at))
        )

    def batch(self, stage: Stage, parents: Iterable[str | None], at: int | None = None) -> TraceSpan:
        """Begin a step of a batch; see Tracing."""
        given = [parent for parent in parents if parent is not None]
        links = [Link(context) for context in _kept(given)]
        if not links:
            return NO_SPAN
        name, tracer = f"{stage.value} batch", self._batches.get_tracer(_SCOPE)
        span = _Recorded(tracer.start_span(name, Context(), SpanKind.CONSUMER, links=links, start_time=_ns(at)))
        span.note(messages=len(given))
        return span

    def ask(self, subject: str) -> TraceSpan:
        """Begin a question to another service; see Tracing."""
        current = CURRENT.get()
        asked_for = IN_HAND.get() if current is None else (current,)
        kept = _kept(asked_for)
        if not kept:
            return NO_SPAN
        if len(kept) == 1:
            parent = set_span_in_context(NonRecordingSpan(kept[0]), Context())
            return _question(self._messages, subject, SpanKind.CLIENT, parent)
        return _question(self._batches, subject, SpanKind.CLIENT, Context(), [Link(one) for one in kept])

    def answer(self, subject: str, parent: str | None) -> TraceSpan:
        """Begin the answer to a question; see Tracing."""
        return NO_SPAN if parent is None else _question(self._messages, subject, SpanKind.SERVER, _parent(parent))

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send spans away while entered, and what is left at the end, for at most CLOSE_S."""
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_Rarely())
        exporter = OTLPSpanExporter(self._url, headers=self._headers, timeout=EXPORT_TIMEOUT_S)
        processor = BatchSpanProcessor(exporter)
        self._messages.add_span_processor(processor)
        self._batches.add_span_processor(processor)
        try:
            yield
        finally:
            last = threading.Thread(target=processor.shutdown, daemon=True)
            last.start()
            await asyncio.to_thread(last.join, CLOSE_S)


class RequestTrace:
    """Notes the trace of an HTTP request, for its log lines and for what it publishes. FastAPI has begun its span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = get_current_span()
        if scope["type"] != "http" or not span.get_span_context().is_valid:
            await self._app(scope, receive, send)
            return
        token = CURRENT.set(_traceparent(span))
        try:
            with bound_contextvars(trace_id=f"{span.get_span_context().trace_id:032x}"):
                await self._app(scope, receive, send)
        finally:
            CURRENT.reset(token)


class _Recorded(TraceSpan):
    def __init__(self, span: ApiSpan) -> None:
        self._span = span
        self.traceparent = _traceparent(span)

    def note(self, **values: str | int) -> None:
        self._span.set_attributes({f"tlim.{name}": value for name, value in values.items()})

    def end(self, failure: str = "", at: int | None = None) -> None:
        if failure:
            self._span.set_status(StatusCode.ERROR, failure)
        self._span.end(_ns(at))


class _Question(_Recorded):
    """A question at one of its two ends, named by OpenTelemetry's conventions for remote procedure calls."""

    def end(self, failure: str = "", at: int | None = None) -> None:
        if failure:
            self._span.set_attribute("error.type", failure)
        super().end(failure, at)


class _WithoutAddresses(SpanProcessor):
    """Empties the path and the query of a request: they name people, and hold words that somebody looks for.

    `http.route` stays.
    """

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        del parent_context
        for name in _ADDRESS & (span.attributes or {}).keys():
            span.set_attribute(name, "")

    def on_end(self, span: ReadableSpan) -> None:
        del span


class _Rarely(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        del record
        now = time.monotonic()
        is_due = now >= self._next
        if is_due:
            self._next = now + QUIET_S
        return is_due


def _ns(at: int | None) -> int | None:
    return None if at is None else at * 1_000_000


def _parent(traceparent: str | None) -> Context:
    return _PROPAGATOR.extract(headers_with(traceparent), Context())


def _question(
    provider: TracerProvider, subject: str, kind: SpanKind, parent: Context, links: Sequence[Link] = ()
) -> TraceSpan:
    about = {"rpc.system.name": "nats", "rpc.method": subject}
    return _Question(provider.get_tracer(_SCOPE).start_span(subject, parent, kind, about, links))


def _kept(traceparents: Iterable[str | None]) -> list[SpanContext]:
    contexts = (_context_of(one) for one in traceparents if one is not None)
    return [context for context in contexts if context.trace_flags.sampled]


def _context_of(traceparent: str) -> SpanContext:
    return get_current_span(_parent(traceparent)).get_span_context()


def _traceparent(span: ApiSpan) -> str | None:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get(TRACEPARENT)

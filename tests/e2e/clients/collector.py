"""A collector of traces: it receives what OpenTelemetry exporters send with OTLP over HTTP, and keeps it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed


@dataclass(frozen=True)
class Span:
    """A span as it was received; ids in hex. `links` are pairs of trace and span."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: frozenset[tuple[str, str]]
    values: dict[str, str | int]
    failure: str


@dataclass(frozen=True)
class Collector:
    """What services sent to `url` so far."""

    url: str
    _received: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Span]:
        """Return all spans, in the order of their coming."""
        return [span for data in tuple(self._received) for span in _spans_in(data)]

    async def steps(self, names: Collection[str], **which: str) -> dict[str, Span]:
        """Wait for spans of all these names, and return one of each: of a trace (`trace_id`), or of a `msg_id`."""
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.1), reraise=True):
            with attempt:
                found = {span.name: span for span in self.spans() if _is_of(span, **which)}
                assert found.keys() >= {*names}, found.keys()
        return found

    async def linked_to(self, span: Span) -> Span:
        """Wait for a span of a batch that links to this one, and return it. Each shard has a batch of its own."""
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.1), reraise=True):
            with attempt:
                linked = (one for one in self.spans() if (span.trace_id, span.span_id) in one.links)
                batches = [one for one in linked if not one.parent_id]
                assert batches
        return batches[0]

    async def question(self, subject: str, step: Span) -> tuple[Span, Span]:
        """Wait for a question that was asked within a step; return the asker's span, and the responder's.

        A question for several messages of a batch is a trace of its own, which links to the step of each.
        """
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.1), reraise=True):
            with attempt:
                questions = [span for span in self.spans() if span.name == subject]
                ours = {(one.trace_id, one.span_id): one for one in questions if _is_within(one, step)}
                answers = [one for one in questions if (one.trace_id, one.parent_id) in ours]
                assert answers, questions
        return ours[answers[0].trace_id, answers[0].parent_id], answers[0]


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Receive traces on a free port of loopback."""
    received: list[bytes] = []

    class Traces(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Traces) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield Collector(f"http://127.0.0.1:{server.server_address[1]}/v1/traces", received)
        server.shutdown()


def _is_of(span: Span, trace_id: str | None = None, msg_id: str | None = None) -> bool:
    return span.trace_id == trace_id if msg_id is None else span.values.get("tlim.msg_id") == msg_id


def _is_within(span: Span, step: Span) -> bool:
    place = (step.trace_id, step.span_id)
    return (span.trace_id, span.parent_id) == place or place in span.links


def _spans_in(data: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
        service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            yield Span(
                service=service,
                name=span.name,
                kind=OtlpSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                links=frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                failure=span.status.message,
                values={one.key: _value(one.value) for one in span.attributes},
            )


def _value(value: AnyValue) -> str | int:
    return value.int_value if value.HasField("int_value") else value.string_value

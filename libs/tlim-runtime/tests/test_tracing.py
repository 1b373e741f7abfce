"""Tracing switched on: what is kept, what a request and a batch tell, and that nobody waits for a collector."""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from threading import Event

import pytest
from fastapi import APIRouter, FastAPI
from httpx import ASGITransport, AsyncClient
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from pydantic import HttpUrl, SecretStr
from structlog.contextvars import get_contextvars
from tlim_runtime import otlp
from tlim_runtime.app import build_app
from tlim_runtime.otlp import OtlpTracing
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.tracing import CURRENT, NO_SPAN, OFF, Stage, trace_of

BATCH = 500


class Kept(SpanExporter):
    """A collector in memory, and how it was reached."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.reached: dict[str, object] = {}
        self.opened = Event()
        self.opened.set()

    def __call__(self, url: str, **options: object) -> "Kept":
        self.reached = {"url": url, **options}
        return self

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.opened.wait(30)
        self.spans += spans
        return SpanExportResult.SUCCESS

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept()
    monkeypatch.setattr(otlp, "OTLPSpanExporter", kept)
    monkeypatch.setattr(otlp, "CLOSE_S", 30)  # for a busy machine
    return kept


def settings(**changes: object) -> ServiceSettings:
    changes = {"traces_url": HttpUrl("http://collector:4318/v1/traces"), **changes}
    return ServiceSettings.placeholder().model_copy(update=changes)


def traceparent(*, is_kept: bool = True) -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{'01' if is_kept else '00'}"


def ids(context: SpanContext | None) -> str:
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


async def test_a_step_continues_the_trace_that_it_is_given_with_its_times_and_its_failure(kept: Kept) -> None:
    before, tracing = traceparent(), OtlpTracing(settings(), "1")
    async with tracing.sending():
        span = tracing.begin(Stage.STORE, before, at=1_000)
        span.note(msg_id="m-1")
        span.end("PlanFailed", at=1_250)
    (found,) = kept.spans
    assert ids(found.parent) == before
    assert trace_of(span.traceparent) == trace_of(before) != {}
    assert (found.name, dict(found.attributes or {})) == ("store", {"tlim.msg_id": "m-1"})
    assert (found.start_time, found.end_time) == (1_000_000_000, 1_250_000_000)
    assert found.status.description == "PlanFailed"


async def test_a_share_of_traces_is_kept_and_what_others_keep_is_kept_here(kept: Kept) -> None:
    tracing = OtlpTracing(settings(traces_share=0.0), "1")
    async with tracing.sending():
        ours, theirs = tracing.begin(Stage.ACCEPT, None), tracing.begin(Stage.STORE, traceparent())
        dropped = tracing.begin(Stage.STORE, traceparent(is_kept=False))
        for span in (ours, theirs, dropped):
            span.end()
        assert tracing.batch(Stage.STORE, [ours.traceparent, dropped.traceparent, None]) is NO_SPAN
        tracing.batch(Stage.STORE, [ours.traceparent, theirs.traceparent]).end()
    assert kept.names == ["store", "store batch"]
    assert [ids(link.context) for link in kept.spans[1].links] == [theirs.traceparent]
    assert ours.traceparent is not None  # those behind us are told that this trace is not kept
    assert ours.traceparent.endswith(f"{TraceFlags.RANDOM_TRACE_ID:02x}")


async def test_the_span_of_a_full_batch_links_to_all_of_its_messages_and_is_in_none_of_their_traces(
    kept: Kept,
) -> None:
    tracing, parents = OtlpTracing(settings(), "1"), [traceparent() for _ in range(BATCH)]
    async with tracing.sending():
        tracing.batch(Stage.DELIVER, [*parents, None]).end()
    (batch,) = kept.spans
    assert [ids(link.context) for link in batch.links] == parents
    assert batch.parent is None
    assert trace_of(ids(batch.context)) not in [trace_of(parent) for parent in parents]


async def test_a_collector_that_hangs_does_not_hold_up_the_end(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "CLOSE_S", 0.05)
    kept.opened.clear()
    tracing = OtlpTracing(settings(), "1")
    async with tracing.sending():
        tracing.begin(Stage.ACCEPT, None).end()
    assert kept.spans == []  # we are here, and it still hangs
    kept.opened.set()


async def test_the_collector_is_told_who_we_are(kept: Kept) -> None:
    tracing = OtlpTracing(settings(traces_authorization=SecretStr("Bearer 4711")), "1.2.3")
    async with tracing.sending():
        tracing.begin(Stage.ACCEPT, None).end()
    assert kept.reached["url"] == "http://collector:4318/v1/traces"
    assert kept.reached["headers"] == {"Authorization": "Bearer 4711"}
    about = kept.spans[0].resource.attributes
    assert [about[f"service.{name}"] for name in ("namespace", "name", "version")] == ["tlim", "tlim", "1.2.3"]


async def test_a_request_goes_on_in_the_trace_of_its_caller_and_its_address_is_not_told(kept: Kept) -> None:
    router, before = APIRouter(), traceparent()

    @router.get("/v1/words/{word}")
    async def look_up(word: str) -> dict[str, str | None]:
        return {"word": word, "log": get_contextvars().get("trace_id"), "published": CURRENT.get()}

    @asynccontextmanager
    async def nothing(_app: FastAPI) -> AsyncIterator[None]:
        yield

    app = build_app("test", "1", settings(), nothing, [router])
    async with app.router.lifespan_context(app), AsyncClient(transport=ASGITransport(app), base_url="http://t") as http:
        answer = (await http.get("/v1/words/alice?q=secret", headers={"traceparent": before})).json()
        await http.get("/healthz")
    (span,) = kept.spans
    assert (span.name, ids(span.parent)) == ("GET /v1/words/{word}", before)
    assert answer == {"word": "alice", "log": trace_of(before)["trace_id"], "published": ids(span.context)}
    assert "secret" not in span.to_json()
    assert "alice" not in span.to_json()


async def test_without_tracing_nothing_is_told_to_those_behind_us() -> None:
    span = OFF.begin(Stage.ACCEPT, None)
    assert (span, OFF.batch(Stage.STORE, [traceparent()])) == (NO_SPAN, NO_SPAN)
    assert (span.traceparent, dict(span.headers), trace_of(span.traceparent)) == (None, {}, {})

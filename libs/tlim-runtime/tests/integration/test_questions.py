"""Questions over NATS with tracing on: both ends have a span in the trace of what caused them."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from pydantic import HttpUrl
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs
from tlim_devstack import nats
from tlim_devstack.servers import NatsServer
from tlim_runtime import otlp
from tlim_runtime.broker import Broker, BrokerUnavailable
from tlim_runtime.otlp import OtlpTracing
from tlim_runtime.outages import DatabaseUnavailable
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.tracing import CURRENT, in_hand, trace_of

SUBJECT, BEHIND = "tests.question", "tests.behind"


class TwoServices:
    """Two connections with tracing; `spans` is what was sent, complete when they are closed."""

    def __init__(self, opened: AsyncExitStack, exporters: list[InMemorySpanExporter], brokers: list[Broker]) -> None:
        self._opened, self._exporters = opened, exporters
        self.asker, self.other = brokers

    async def spans(self) -> list[ReadableSpan]:
        """Close, and return all spans in the order of their beginning."""
        await self._opened.aclose()
        sent = [span for exporter in self._exporters for span in exporter.get_finished_spans()]
        return sorted(sent, key=lambda span: span.start_time or 0)


@pytest_asyncio.fixture
async def services(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoServices]:
    exporters: list[InMemorySpanExporter] = []
    brokers: list[Broker] = []

    def export(_url: str, **_options: object) -> InMemorySpanExporter:
        exporters.append(InMemorySpanExporter())
        return exporters[-1]

    monkeypatch.setattr(otlp, "OTLPSpanExporter", export)
    monkeypatch.setattr(otlp, "CLOSE_S", 30)  # for a busy machine
    url = {"traces_url": HttpUrl("http://collector:4318/v1/traces")}
    user, password = nats.TEST_USER, nats_server.passwords[nats.TEST_USER]
    async with AsyncExitStack() as opened:
        for name in ("asker", "other"):
            tracing = OtlpTracing(ServiceSettings.placeholder().model_copy(update=url), "1")
            await opened.enter_async_context(tracing.sending())
            brokers.append(await Broker.connect(nats_server.url, user, password, name, tracing=tracing))
            opened.push_async_callback(brokers[-1].close)
        yield TwoServices(opened, exporters, brokers)


def traceparent(*, is_kept: bool = True) -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{'01' if is_kept else '00'}"


def ids(context: SpanContext | None) -> str:
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def what(span: ReadableSpan) -> tuple[str, SpanKind]:
    return span.name, span.kind


async def echo(data: bytes) -> bytes:
    return data


async def test_a_question_has_a_span_at_both_ends_and_what_the_answer_asks_is_behind_it(services: TwoServices) -> None:
    before, logged = traceparent(), []

    async def answer(data: bytes) -> bytes:
        logged.append(get_contextvars())
        return await services.other.request(BEHIND, data, timeout_s=20)

    await services.other.respond(SUBJECT, answer, queue="tests")
    await services.asker.respond(BEHIND, echo, queue="tests")
    with in_hand([before]):
        assert await services.asker.request(SUBJECT, b"hello", timeout_s=20) == b"hello"

    spans = await services.spans()
    assert [what(span) for span in spans] == [
        (SUBJECT, SpanKind.CLIENT), (SUBJECT, SpanKind.SERVER), (BEHIND, SpanKind.CLIENT), (BEHIND, SpanKind.SERVER),
    ]  # fmt: skip
    assert [ids(span.parent) for span in spans] == [before, *(ids(span.context) for span in spans[:-1])]
    assert dict(spans[1].attributes or {}) == {"rpc.system.name": "nats", "rpc.method": SUBJECT}
    assert logged == [trace_of(before)]


async def test_a_question_of_an_http_request_is_in_its_trace(services: TwoServices) -> None:
    before = traceparent()
    await services.other.respond(SUBJECT, echo, queue="tests")
    token = CURRENT.set(before)
    await services.asker.request(SUBJECT, b"", timeout_s=20)
    CURRENT.reset(token)
    asked, answered = await services.spans()
    assert [ids(asked.parent), ids(answered.parent)] == [before, ids(asked.context)]


async def test_a_question_for_several_messages_is_a_trace_of_its_own_with_links_to_those_that_are_kept(
    services: TwoServices,
) -> None:
    messages = [traceparent(), traceparent(is_kept=False), None, traceparent()]
    await services.other.respond(SUBJECT, echo, queue="tests")
    with in_hand(messages):
        await services.asker.request(SUBJECT, b"", timeout_s=20)
    asked, answered = await services.spans()
    assert asked.parent is None
    assert [ids(link.context) for link in asked.links] == [messages[0], messages[3]]
    assert ids(answered.parent) == ids(asked.context)


@pytest.mark.parametrize("messages", [[], [None, None], [traceparent(is_kept=False)]])
async def test_what_is_asked_for_nothing_that_is_kept_has_no_span(
    services: TwoServices, messages: list[str | None]
) -> None:
    await services.other.respond(SUBJECT, echo, queue="tests")
    with in_hand(messages):
        await services.asker.request(SUBJECT, b"", timeout_s=20)
    assert await services.spans() == []


async def test_jetstream_is_no_service_and_is_told_of_no_trace(services: TwoServices) -> None:
    with in_hand([traceparent()]):
        await services.asker.api("INFO")
    assert await services.spans() == []


async def test_a_question_that_cannot_be_answered_now_is_logged_with_its_trace(services: TwoServices) -> None:
    async def fail(_data: bytes) -> bytes:
        raise DatabaseUnavailable("the database is away")

    await services.other.respond(SUBJECT, fail, queue="tests")
    before = traceparent()
    with capture_logs() as lines, in_hand([before]), pytest.raises(BrokerUnavailable, match="DatabaseUnavailable"):
        await services.asker.request(SUBJECT, b"", timeout_s=20)
    (line,) = lines
    assert (line["subject"], line["trace_id"]) == (SUBJECT, trace_of(before)["trace_id"])


async def test_both_ends_of_a_question_that_failed_say_why(services: TwoServices) -> None:
    async def fail(_data: bytes) -> bytes:
        raise LookupError

    await services.other.respond(SUBJECT, fail, queue="tests")
    with in_hand([traceparent()]), pytest.raises(BrokerUnavailable, match="LookupError"):
        await services.asker.request(SUBJECT, b"", timeout_s=20)
    with in_hand([traceparent()]), pytest.raises(BrokerUnavailable, match="NoResponders"):
        await services.asker.request(BEHIND, b"", timeout_s=20)
    spans = await services.spans()
    reasons = ["BrokerUnavailable", "LookupError", "NoRespondersError"]
    assert [(span.attributes or {})["error.type"] for span in spans] == reasons
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR] * 3

"""What is asked while a batch is stored is told in the traces of its messages."""

import secrets

import pytest
from message_store.subscribers import read_item
from message_store.traces import BatchTraces
from message_store.values import ArrivedMessage
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import HttpUrl
from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import Rpc, subject_in
from tlim_runtime import otlp
from tlim_runtime.consumer import Incoming
from tlim_runtime.otlp import OtlpTracing
from tlim_runtime.settings import ServiceSettings
from tlim_runtime.tracing import trace_of


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(otlp, "OTLPSpanExporter", lambda *_url, **_options: exporter)
    return exporter


async def stored_with_a_question(exporter: InMemorySpanExporter, traceparents: list[str]) -> list[ReadableSpan]:
    """Store a batch of messages with these traces, ask something meanwhile, and return all spans."""
    url = {"traces_url": HttpUrl("http://collector:4318/v1/traces")}
    tracing = OtlpTracing(ServiceSettings.placeholder().model_copy(update=url), "1")
    read = [arrived(f"m-{number}") for number, _ in enumerate(traceparents)]
    batch = [Incoming(subject_in(MsgType.TEXT, "c"), b"", 1, 1, traceparent) for traceparent in traceparents]
    traces = BatchTraces(tracing)
    async with tracing.sending():
        with traces.of(batch, read):
            tracing.ask(Rpc.USER_MEET).end()
            traces.committed(read)
        tracing.ask(Rpc.USER_MEET).end()  # no message is in hand any more
    return list(exporter.get_finished_spans())


def arrived(msg_id: str) -> ArrivedMessage:
    envelope = Envelope(msg_from="alice", msg_to="bob", msg_id=msg_id, msg_type=MsgType.TEXT, body=[{"text": "hello"}])
    return ArrivedMessage(
        sender="alice", reply_to="", stanza_id="1", location="", received_at=1, envelope=envelope, arrived_at=1
    )


def traceparent() -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def test_a_message_is_read_with_its_trace() -> None:
    before = traceparent()
    read = read_item(Incoming(subject_in(MsgType.TEXT, "c"), arrived("m-1").to_bytes(), 1, 1, before))
    assert isinstance(read, ArrivedMessage)
    assert read.traceparent == before


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


async def test_a_question_for_one_message_is_a_part_of_its_storing(exporter: InMemorySpanExporter) -> None:
    before = traceparent()
    spans = {span.name: span for span in await stored_with_a_question(exporter, [before])}
    asked, store = spans[Rpc.USER_MEET], spans["store"]
    assert asked.parent is not None
    assert (asked.parent.trace_id, asked.parent.span_id) == ids(store)
    assert f"{asked.parent.trace_id:032x}" == trace_of(before)["trace_id"]


async def test_a_question_for_several_messages_links_to_the_storing_of_each(exporter: InMemorySpanExporter) -> None:
    spans = await stored_with_a_question(exporter, [traceparent(), traceparent()])
    (asked,) = (span for span in spans if span.name == Rpc.USER_MEET)
    assert asked.parent is None
    linked = {(link.context.trace_id, link.context.span_id) for link in asked.links}
    assert linked == {ids(span) for span in spans if span.name == "store"}


async def test_messages_of_two_transactions_are_stored_and_published_one_after_the_other(
    exporter: InMemorySpanExporter,
) -> None:
    url = {"traces_url": HttpUrl("http://collector:4318/v1/traces")}
    tracing = OtlpTracing(ServiceSettings.placeholder().model_copy(update=url), "1")
    read = [arrived("m-0"), arrived("m-1")]
    batch = [Incoming(subject_in(MsgType.TEXT, "c"), b"", 1, 1, traceparent()) for _ in read]
    traces = BatchTraces(tracing)
    async with tracing.sending():
        with traces.of(batch, read):
            for one in read:
                traces.committed([one])
                traces.published()
    ended = sorted(exporter.get_finished_spans(), key=lambda span: span.end_time or 0)
    steps = [(span.name, span.attributes["tlim.msg_id"]) for span in ended[:4] if span.attributes]
    assert steps == [("store", "m-0"), ("publish", "m-0"), ("store", "m-1"), ("publish", "m-1")]

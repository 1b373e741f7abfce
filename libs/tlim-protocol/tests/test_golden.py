"""Golden examples: every type, every error code, and the specification's own examples as printed."""

import json
from pathlib import Path

import pytest
from tlim_protocol.docs import example
from tlim_protocol.docs import main as write_docs
from tlim_protocol.envelope import read_envelope, write_envelope
from tlim_protocol.errors import ERRORS, ErrorCode, TlimError
from tlim_protocol.registry import CLIENT_TYPES, REGISTRY, MsgType

GOLDEN = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parents[3]
REFUSALS = json.loads((GOLDEN / "refusals.json").read_text(encoding="utf-8"))
SPECIFICATION_BODIES = json.loads((GOLDEN / "specification_bodies.json").read_text(encoding="utf-8"))

NOT_OF_THE_ENVELOPE = {
    ErrorCode.SESSION_TYPE_INVALID: "HTTP: addSession",
    ErrorCode.SESSION_NAME_EMPTY: "HTTP: modifySession",
    ErrorCode.SESSION_USER_UNKNOWN: "HTTP: addSession",
    ErrorCode.SESSION_UNKNOWN: "message-store and session-api: needs the session",
    ErrorCode.UNAVAILABLE: "a dependency is down",
    ErrorCode.NOT_ALLOWED: "message-store and session-api: needs the session",
    ErrorCode.RECALL_TOO_LATE: "message-store: needs the message",
    ErrorCode.TOO_MANY_REQUESTS: "rate limits",
}


def test_the_specifications_example_reads_as_printed_and_writes_as_strict_json() -> None:
    text = (GOLDEN / "specification.json5").read_text(encoding="utf-8")
    envelope = read_envelope(text, "31e4302a-22f1-430e-a7e2-eebcf960dad6")
    assert envelope.body == [{"text": "hello,world"}]
    assert json.loads(write_envelope(envelope)) == {
        "compress": "0",
        "encode": "1",
        "encrypt": "0",
        "version": "2.0.0",
        "from": "31e4302a-22f1-430e-a7e2-eebcf960dad6",
        "to": "b4842821-0f8a-48f9-9492-89c20c3889a5",
        "msg_id": "fd6c568e-19ca-4e4e-9709-24dec0bb2b8d",
        "msg_type": "MTT-000",
        "msg_time": "1599218283837",
        "body": [{"text": "hello,world"}],
    }


@pytest.mark.parametrize(
    "spelling",
    [
        'compress:"0", encode:"1", encrypt:"0", version:"2.0.0", from:"alice", to:"bob"',
        'compress:"none", encode:"1", encrypt:"0", version:"2.0.0", from:"alice", to:"bob"',
        'compress:"0", encode:"1", encrypt:"plain", version:"2.0.0", from:"alice", to:"bob"',
        'compress:"0", encode:"1", encrypt:"0", version:"2.0.0", msg_from:"alice", msg_to:"bob"',
        'msg_from:"mallory", msg_to:"carol", from:"alice", to:"bob"',
        'compress:null, encode:null, encrypt:null, version:null, from:"alice", to:"bob", msg_from:null',
        'from:null, to:null, msg_from:"alice", msg_to:"bob"',
        'from:"alice", to:"bob"',
    ],
)
def test_each_spelling_of_the_same_is_written_the_same(spelling: str) -> None:
    text = f"{{{spelling}, msg_id:'m1', msg_type:'MTT-000', msg_time:'1599218283837', body:[{{text:'hi'}}]}}"
    assert json.loads(write_envelope(read_envelope(text, "alice"))) == {
        "compress": "0",
        "encode": "1",
        "encrypt": "0",
        "version": "2.0.0",
        "from": "alice",
        "to": "bob",
        "msg_id": "m1",
        "msg_type": "MTT-000",
        "msg_time": "1599218283837",
        "body": [{"text": "hi"}],
    }


@pytest.mark.parametrize("case", SPECIFICATION_BODIES, ids=lambda case: f"{case['msg_type']} {case['title']}")
def test_every_body_printed_in_the_specification_is_read(case: dict[str, str]) -> None:
    text = f"{{from:'a', to:'b', msg_id:'1', msg_type:'{case['msg_type']}', body: {case['body']}}}"
    envelope = read_envelope(text, "a")
    assert envelope.msg_type == case["msg_type"]
    assert all(field.name in envelope.body[0] for field in REGISTRY[envelope.msg_type].element if field.required)


def test_the_printed_bodies_cover_every_type_with_a_printed_body() -> None:
    assert {case["msg_type"] for case in SPECIFICATION_BODIES} == set(CLIENT_TYPES) - {MsgType.GROUP_TODO}


@pytest.mark.parametrize("msg_type", CLIENT_TYPES)
def test_every_client_type_has_an_example_that_reads_and_writes_back_the_same(msg_type: MsgType) -> None:
    written = write_envelope(example(msg_type))
    assert write_envelope(read_envelope(written, "alice")) == written


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: f"{case['code']} {case['why']}")
def test_each_refusal_has_exactly_its_documented_code_and_field(case: dict[str, str | None]) -> None:
    with pytest.raises(TlimError) as caught:
        read_envelope(case["text"], "alice")
    assert (caught.value.code, caught.value.field) == (case["code"], case.get("field"))
    assert caught.value.msg_id == case.get("msg_id")
    assert caught.value.detail


def test_a_message_may_have_a_thousand_elements() -> None:
    body = [{"msg_id": f"m{number}"} for number in range(1_000)]
    text = json.dumps({"from": "bob", "to": "alice", "msg_id": "r1", "msg_type": "MTC-001", "body": body})
    assert read_envelope(text, "bob").body == body


def test_every_error_code_has_a_golden_refusal_or_a_reason_why_the_envelope_cannot_cause_it() -> None:
    assert {ErrorCode(str(case["code"])) for case in REFUSALS} | set(NOT_OF_THE_ENVELOPE) == set(ErrorCode)


def test_registries_are_complete() -> None:
    assert set(REGISTRY) == set(MsgType)
    assert len(MsgType) == 17
    assert set(ERRORS) == set(ErrorCode)
    assert [code.value for code in ErrorCode] == [f"error-{number:03}" for number in range(19)]
    for row in REGISTRY.values():
        assert row.title
        assert row.summary
        assert row.example


def test_the_documentation_is_what_the_registries_say(tmp_path: Path) -> None:
    assert write_docs([str(REPOSITORY / "docs/protocol.md"), "--check"]) == 0
    stale = tmp_path / "protocol.md"
    stale.write_text("old", encoding="utf-8")
    assert write_docs([str(stale), "--check"]) == 1
    assert write_docs([str(stale)]) == 0
    page = stale.read_text(encoding="utf-8")
    assert all(f"`{name.value}`" in page for name in [*MsgType, *ErrorCode])

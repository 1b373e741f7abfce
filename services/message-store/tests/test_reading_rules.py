"""What each row of the log is to a reader, and how he calls where it belongs."""

import pytest
from message_store.reading.answers import log_item
from message_store.reading.sync_service import LogKind, conversation_name, kind_of
from message_store.values import ReadRow
from tlim_protocol.lenient import write_json
from tlim_protocol.registry import REGISTRY, MsgType


def row(
    msg_type: MsgType, sender: str = "bob", *, body: object = None, conversation_id: str = "u:alice:bob"
) -> ReadRow:
    return ReadRow(
        seq=7, conversation_id=conversation_id, sender=sender, recipient="alice", msg_id="m", msg_type=msg_type.value,
        version="2.0.0", body=write_json([dict(REGISTRY[msg_type].example)] if body is None else body), msg_time="0",
        stored_at=1,
    )  # fmt: skip


@pytest.mark.parametrize("msg_type", MsgType)
def test_every_type_is_something_to_a_reader(msg_type: MsgType) -> None:
    kind = kind_of(row(msg_type))
    assert (kind is LogKind.MESSAGE) == REGISTRY[msg_type].is_chat
    assert (kind is LogKind.NOTICE) == (not REGISTRY[msg_type].sent_by_clients)
    assert (kind is LogKind.RECALL) == (msg_type is MsgType.RECALL)


@pytest.mark.parametrize(
    ("conversation_id", "me", "name"),
    [
        ("u:alice:bob", "alice", "bob"),
        ("u:alice:bob", "bob", "alice"),
        ("u:bob:bob", "bob", "bob"),
        ("s-1", "bob", "s-1"),
    ],
)
def test_a_conversation_is_called_by_the_other_one_or_by_its_session(conversation_id: str, me: str, name: str) -> None:
    assert conversation_name(conversation_id, me) == name


def test_a_notice_without_a_body_is_from_nobody() -> None:
    told = log_item("alice", row(MsgType.SESSION_CHANGED, "", body=[], conversation_id="s-1"))
    assert (told["from"], told["conversation"], told["session_id"]) == ("", "s-1", "s-1")


def test_who_did_it_is_who_a_notice_is_from() -> None:
    assert log_item("alice", row(MsgType.SESSION_ADDED, "", body=[{"actor": "carol"}]))["from"] == "carol"

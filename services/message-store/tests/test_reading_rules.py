"""What each row of the log is to a reader, and how he calls where it belongs."""

import pytest
from message_store.models import Audience, Message
from message_store.reading.schemas import LogItem
from message_store.reading.sync_service import LogKind, conversation_name, kind_of
from tlim_protocol.registry import REGISTRY, MsgType


def row(msg_type: MsgType, sender: str = "bob", **changes: object) -> Message:
    known = {
        "seq": 7, "conversation_id": "u:alice:bob", "sender": sender, "recipient": "alice",
        "audience": Audience.RECIPIENT, "msg_id": "m", "msg_type": msg_type.value,
        "is_chat": REGISTRY[msg_type].is_chat,
        "version": "2.0.0", "body": [dict(REGISTRY[msg_type].example)], "msg_time": "0", "location": "web",
        "stored_at": 1,
    }  # fmt: skip
    return Message.model_validate({**known, **changes})


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
    told = LogItem.seen_by("alice", row(MsgType.SESSION_CHANGED, "", body=[], conversation_id="s-1"))
    assert (told.msg_from, told.conversation, told.session_id) == ("", "s-1", "s-1")


def test_who_did_it_is_who_a_notice_is_from() -> None:
    assert LogItem.seen_by("alice", row(MsgType.SESSION_ADDED, "", body=[{"actor": "carol"}])).msg_from == "carol"

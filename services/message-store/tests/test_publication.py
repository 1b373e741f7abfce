"""Where publishing begins after a start or a loss, and what is read back from the table."""

from datetime import timedelta
from typing import Any

import pytest
from message_store.models import Audience
from message_store.publication import LOSS_WINDOW_MS, delivery_of, starting_point
from message_store.stream_end import Newest, newest_seq_of
from message_store.values import DeliveredRow, LogRow
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage, StoredMessage
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import BRIDGE_OUTBOXES


@pytest.mark.parametrize(
    ("noted", "newest", "before_window", "start"),
    [
        (0, Newest(is_fresh=True, seq=None), 0, 0),  # the very first start
        (100, Newest(is_fresh=False, seq=100), 100, 100),  # nothing happened
        (100, Newest(is_fresh=False, seq=140), 100, 100),  # the note is older than the stream: look again
        (100, Newest(is_fresh=False, seq=80), 100, 80),  # the stream lost its tail
        (100, Newest(is_fresh=True, seq=None), 60, 60),  # the stream was lost: what is young enough
        (100, Newest(is_fresh=True, seq=None), 130, 100),  # the stream was lost, and the note is older than that
        (100, Newest(is_fresh=False, seq=None), 100, 100),  # the stream is empty because its messages are old
    ],
)
def test_publishing_begins_where_table_and_stream_agree(
    noted: int, newest: Newest, before_window: int, start: int
) -> None:
    assert starting_point(noted, newest, before_window) == start


def test_a_confirmation_tells_what_was_published_before_it_and_not_the_old_seq_it_confirms() -> None:
    envelope = Envelope(msg_from="alice", msg_to="bob", msg_id="m1", msg_type=MsgType.TEXT, body=[{"text": "hi"}])
    delivery = StoredMessage(seq=5, stored_at=1, recipients=["bob"], envelope=envelope, reach=1)
    assert newest_seq_of(delivery) == 5
    assert newest_seq_of(delivery.model_copy(update={"recipients": [], "reach": 0, "after_seq": 41})) == 41


def test_only_the_last_piece_tells_that_its_message_was_published() -> None:
    """The loss of the stream's end may have taken the other pieces, and what is there is dropped by its id."""
    envelope = Envelope(msg_from="alice", msg_to="bob", msg_id="m1", msg_type=MsgType.TEXT, body=[{"text": "hi"}])
    first = StoredMessage(seq=5, stored_at=1, recipients=[], envelope=envelope, reach=1, is_last=False)
    assert newest_seq_of(first) == 4
    assert newest_seq_of(first.model_copy(update={"recipients": ["bob"], "is_last": True})) == 5


def test_the_stream_keeps_what_tells_of_a_loss_for_as_long_as_one_may_come_to_light() -> None:
    assert all(spec.keep >= timedelta(milliseconds=LOSS_WINDOW_MS) for spec in BRIDGE_OUTBOXES)


def test_a_refusal_tells_what_was_published_before_it() -> None:
    refusal = RejectedMessage(
        code=ErrorCode.USER_UNKNOWN, detail="", msg_id="m1", msg_type=MsgType.TEXT, sender="alice",
        reply_to="alice@im.example/web", stanza_id="s1", received_at=1, after_seq=41,
    )  # fmt: skip
    assert newest_seq_of(refusal) == 41


def found(recipients: list[str], *, is_recalled: bool = False, **changes: Any) -> DeliveredRow:
    row = LogRow(
        7, "u:alice:bob", "alice", "bob", Audience.RECIPIENT, "m1", MsgType.TEXT.value, True, "2.0.0",
        '[{"text":"nul \\u0000 and 😀","n":12345678901234567890}]', "123", "web", 99,
    )  # fmt: skip
    return DeliveredRow(row._replace(**changes), is_recalled, recipients)


def test_a_row_is_delivered_as_it_was_accepted() -> None:
    event = delivery_of(found(["bob"]))
    assert event is not None
    assert (event.seq, event.stored_at, event.recipients, event.reply_to) == (7, 99, ["bob"], None)
    assert event.envelope.body == [{"text": "nul \x00 and 😀", "n": 12345678901234567890}]
    assert (event.envelope.msg_from, event.envelope.msg_to, event.envelope.msg_time) == ("alice", "bob", "123")


def test_a_notice_is_delivered_in_the_name_of_whoever_made_the_change() -> None:
    notice = found(
        ["alice", "bob"], sender="", recipient=None, msg_type=MsgType.SESSION_ADDED.value, body='[{"actor":"alice"}]'
    )
    event = delivery_of(notice)
    assert event is not None
    assert (event.envelope.msg_from, event.recipients) == ("alice", ["alice", "bob"])


def test_a_receipt_of_a_group_that_one_author_gets_names_a_receiver_only_if_the_server_gathered_it() -> None:
    event = delivery_of(found(["bob"], conversation_id="s1", msg_type=MsgType.RECEIVED.value))
    assert event is not None
    assert (event.recipients, event.envelope.msg_to) == (["bob"], None)
    readers = '[{"session_id":"s1","msg_id":"m1","readers":[{"user_id":"carol"}]}]'
    gathered = delivery_of(found(["bob"], conversation_id="s1", sender="", msg_type=MsgType.READ.value, body=readers))
    assert gathered is not None
    assert (gathered.envelope.msg_from, gathered.envelope.msg_to) == ("carol", "bob")


def test_what_is_recalled_or_concerns_nobody_else_is_not_delivered() -> None:
    assert delivery_of(found(["bob"], is_recalled=True)) is None
    assert delivery_of(found([])) is None

"""Where publishing begins after a start or a loss, and what is read back from the table."""

from datetime import timedelta
from typing import Any

import pytest
from message_store.models import Audience
from message_store.publication import LOSS_WINDOW_MS, Newest, delivery_of, newest_seq_of, outgoing, starting_point
from message_store.values import DeliveredRow, LogRow
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage, StoredMessage, read_out_event
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import BRIDGE_OUTBOX

MAX_PAYLOAD = 8 * 1024 * 1024  # deploy/nats/nats.conf


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
    delivery = StoredMessage(seq=5, stored_at=1, recipients=["bob"], envelope=envelope)
    assert newest_seq_of(delivery) == 5
    assert newest_seq_of(delivery.model_copy(update={"recipients": [], "after_seq": 41})) == 41
    assert newest_seq_of(delivery.model_copy(update={"recipients": []})) is None


def test_the_stream_keeps_what_tells_of_a_loss_for_as_long_as_one_may_come_to_light() -> None:
    assert BRIDGE_OUTBOX.keep >= timedelta(milliseconds=LOSS_WINDOW_MS)


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


def to_a_large_group() -> StoredMessage:
    """A delivery that is larger than MAX_PAYLOAD."""
    envelope = Envelope(
        msg_from="alice", msg_id="m" * 64, msg_type=MsgType.GROUP_TODO,
        body=[{"session_id": "s1", "content": "\u0001" * 1_000_000}],
    )  # fmt: skip
    people = [f"{'😀' * 58}{number:06}" for number in range(10_000)]
    return StoredMessage(
        seq=7, stored_at=1, recipients=people, envelope=envelope, reply_to="alice@im.example/web", stanza_id="s1",
        received_at=1,
    )  # fmt: skip


def test_what_is_more_than_nats_takes_goes_in_pieces_and_the_sender_is_told_once() -> None:
    event = to_a_large_group()
    assert len(event.to_bytes()) > MAX_PAYLOAD
    pieces = outgoing("s1", event, MAX_PAYLOAD)
    read = [read_out_event(piece.payload) for piece in pieces]
    assert all(len(piece.payload) < MAX_PAYLOAD - 4096 for piece in pieces)
    assert [name for one in read if isinstance(one, StoredMessage) for name in one.recipients] == event.recipients
    assert [isinstance(one, StoredMessage) and one.tells_sender for one in read] == [True, *[False] * (len(read) - 1)]
    assert [one.reply_to for one in read] == ["alice@im.example/web", *[None] * (len(read) - 1)]
    assert {newest_seq_of(one) for one in read} == {7}
    assert len({piece.message_id for piece in pieces}) == len(pieces) > 1
    assert {piece.subject for piece in pieces} == {pieces[0].subject}


def test_pieces_have_the_same_id_only_if_they_are_for_the_same_people() -> None:
    live = to_a_large_group()
    people = live.recipients
    middle = len(people) // 2
    orders = [people, people[::-1], people[::2] + people[1::2], people[middle - 1 :: -1] + people[middle:]]
    told: dict[str, set[frozenset[str]]] = {}
    for order in orders:
        again = live.model_copy(update={"recipients": order, "reply_to": None, "stanza_id": None, "received_at": None})
        for piece in outgoing("s1", again, MAX_PAYLOAD):
            event = read_out_event(piece.payload)
            assert isinstance(event, StoredMessage)
            told.setdefault(str(piece.message_id), set()).add(frozenset(event.recipients))
    assert all(len(sets) == 1 for sets in told.values())
    assert len(told) == len(set.union(*told.values()))


def test_what_nats_takes_goes_in_one_piece() -> None:
    delivery = delivery_of(found(["bob", "carol"]))
    assert delivery is not None
    (piece,) = outgoing("u:alice:bob", delivery, MAX_PAYLOAD)
    assert (piece.payload, piece.message_id) == (delivery.to_bytes(), "seq:7:stored")

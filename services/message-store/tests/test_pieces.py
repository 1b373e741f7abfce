"""Into which pieces an event is cut, who hears of it from which piece, and under which ids they are published."""

from collections.abc import Iterator
from typing import Any

import pytest
from message_store.pieces import MAX_BYTES, outgoing, written_out
from tlim_protocol.body import Body
from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import RejectedMessage, StoredMessage, read_out_event
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard
from tlim_protocol.lenient import read_strict
from tlim_protocol.registry import MsgType
from tlim_protocol.subjects import subject_out

MAX_PAYLOAD = 8 * 1024 * 1024  # deploy/nats/nats.conf
PEOPLE = [f"user{number}" for number in range(100)]
SAME_SHARD = ("bob", "dave")


def text(body: Body | None = None, sender: str = "alice", **changes: Any) -> StoredMessage:
    envelope = Envelope(
        msg_from=sender, msg_to="bob", msg_id="m1", msg_type=MsgType.TEXT, body=body or [{"text": "hi"}]
    )
    told: dict[str, Any] = {
        "reply_to": f"{sender}@im.example/web", "stanza_id": "s1", "received_at": 1, "via": "bridge-1",
    }  # fmt: skip
    return StoredMessage(stored_at=1, envelope=envelope, **{"seq": 7, "recipients": ["bob"], **told, **changes})


def read(event: StoredMessage, max_payload: int = MAX_PAYLOAD) -> list[tuple[str, StoredMessage]]:
    """The pieces with their subjects."""
    pieces = []
    for piece in outgoing(event, max_payload):
        read = read_out_event(piece.payload)
        assert isinstance(read, StoredMessage)
        pieces.append((piece.subject, read))
    return pieces


def test_each_recipient_is_in_the_piece_of_their_shard_and_the_sender_hears_once() -> None:
    event = text(recipients=PEOPLE)
    pieces = read(event)
    assert len(pieces) == DELIVERY_SHARDS
    for subject, piece in pieces:
        assert {subject_out(MsgType.TEXT, one) for one in piece.recipients} == {subject}
        assert (piece.reach, piece.envelope, piece.seq) == (100, event.envelope, 7)
    assert sorted(one for _, piece in pieces for one in piece.recipients) == sorted(PEOPLE)
    (first, told), *others = pieces
    assert first == subject_out(MsgType.TEXT, "alice")
    assert (told.reply_to, told.stanza_id, told.received_at, told.via) == ("alice@im.example/web", "s1", 1, "bridge-1")
    assert told.tells_sender
    for _, piece in others:
        assert (piece.reply_to, piece.stanza_id, piece.via, piece.tells_sender) == (None, None, None, False)
        assert piece.received_at == 1


def test_only_the_last_piece_is_the_last() -> None:
    assert [piece.is_last for _, piece in read(text(recipients=PEOPLE))] == [False] * (DELIVERY_SHARDS - 1) + [True]


def test_two_people_of_one_shard_need_one_piece() -> None:
    one, other = SAME_SHARD
    assert delivery_shard(one) == delivery_shard(other)
    ((_, piece),) = read(text(sender=one, recipients=[other]))
    assert (piece.recipients, piece.reply_to, piece.is_last) == ([other], f"{one}@im.example/web", True)


def test_a_sender_of_another_shard_has_a_piece_without_recipients() -> None:
    (_, told), (subject, piece) = read(text())
    assert (told.recipients, told.reach, told.is_news, told.tells_sender) == ([], 1, True, True)
    assert (subject, piece.recipients, piece.tells_sender) == (subject_out(MsgType.TEXT, "bob"), ["bob"], False)


def test_a_message_read_back_from_the_table_still_tells_the_senders_other_devices() -> None:
    again = text(reply_to=None, stanza_id=None, received_at=None, via=None)
    assert [(piece.recipients, piece.tells_sender) for _, piece in read(again)] == [([], True), (["bob"], False)]


def test_nobody_hears_of_a_notice_as_its_sender() -> None:
    envelope = Envelope(msg_from="alice", msg_id="s1:1", msg_type=MsgType.SESSION_ADDED, body=[{"session_id": "s1"}])
    notice = StoredMessage(seq=7, stored_at=1, recipients=["bob", "dave"], envelope=envelope)
    assert [piece.recipients for _, piece in read(notice)] == [["bob", "dave"]]


@pytest.mark.parametrize("sender", ["alice", "bob"])
def test_answers_without_recipients_go_to_the_senders_shard(sender: str) -> None:
    ((subject, piece),) = read(text(sender=sender, recipients=[], is_news=False, after_seq=5))
    assert (subject, piece.recipients, piece.after_seq) == (subject_out(MsgType.TEXT, sender), [], 5)
    refusal = RejectedMessage(
        code=ErrorCode.USER_UNKNOWN, detail="", msg_id="m1", msg_type=MsgType.TEXT, sender=sender,
        reply_to=f"{sender}@im.example/web", stanza_id="s1", received_at=1, after_seq=41,
    )  # fmt: skip
    (refused,) = outgoing(refusal, MAX_PAYLOAD)
    assert (refused.subject, refused.payload) == (subject_out(MsgType.TEXT, sender), refusal.to_bytes())


def test_pieces_have_ids_of_their_own_and_the_same_ones_when_they_are_published_again() -> None:
    ids = [piece.message_id for piece in outgoing(text(recipients=PEOPLE), MAX_PAYLOAD)]
    assert len(set(ids)) == len(ids) == DELIVERY_SHARDS
    read_back = text(recipients=PEOPLE[::-1], reply_to=None, stanza_id=None, received_at=None, via=None)
    assert {piece.message_id for piece in outgoing(read_back, MAX_PAYLOAD)} == set(ids)


def test_numbers_in_a_body_travel_as_they_were_written() -> None:
    body: Any = read_strict(b'[{"text":"nul \\u0000 and \xf0\x9f\x98\x80","n":12345678901234567890,"price":100.10}]')
    for piece in outgoing(text(body), MAX_PAYLOAD):
        assert b'"n":12345678901234567890,"price":100.10' in piece.payload
    assert all(piece.envelope.body == body for _, piece in read(text(body)))


def to_a_large_group() -> StoredMessage:
    """A delivery of which the pieces of some shards are larger than MAX_PAYLOAD."""
    body: Body = [{"text": "\u0001" * 1_000_000}]
    return text(body, recipients=[f"{'😀' * 58}{number:06}" for number in range(80_000)])


def test_what_is_more_than_nats_takes_for_one_shard_goes_in_halves() -> None:
    event = to_a_large_group()
    pieces = outgoing(event, MAX_PAYLOAD)
    assert all(len(piece.payload) < MAX_PAYLOAD - 4096 for piece in pieces)
    told = [piece for _, piece in read(event)]
    assert sorted(one for piece in told for one in piece.recipients) == sorted(event.recipients)
    assert [piece.tells_sender for piece in told] == [True] + [False] * (len(told) - 1)
    assert [piece.is_last for piece in told] == [False] * (len(told) - 1) + [True]
    assert len({piece.message_id for piece in pieces}) == len(pieces) > DELIVERY_SHARDS


def test_halves_have_the_same_id_only_if_they_are_for_the_same_people() -> None:
    live = to_a_large_group()
    told: dict[str, set[frozenset[str]]] = {}
    for order in (live.recipients, live.recipients[::-1], live.recipients[::2] + live.recipients[1::2]):
        again = live.model_copy(update={"recipients": order, "reply_to": None, "stanza_id": None, "received_at": None})
        for piece, (_, event) in zip(outgoing(again, MAX_PAYLOAD), read(again), strict=True):
            told.setdefault(piece.message_id, set()).add(frozenset(event.recipients))
    assert all(len(sets) == 1 for sets in told.values())
    assert len(told) == len(set.union(*told.values()))


def test_large_messages_to_all_shards_are_written_out_a_few_at_a_time() -> None:
    asked: list[int] = []

    def events() -> Iterator[StoredMessage]:
        for seq in range(1, 31):
            asked.append(seq)
            yield text([{"text": "x" * 1_000_000}], recipients=PEOPLE, seq=seq)

    seqs: list[int] = []
    for portion in written_out(events(), MAX_PAYLOAD, lambda _event: {}):
        one_more = DELIVERY_SHARDS * 1_100_000
        assert sum(len(piece.payload) for piece in portion) <= MAX_BYTES + one_more
        told = [read_out_event(piece.payload) for piece in portion]
        assert max(asked) == max(event.seq for event in told if isinstance(event, StoredMessage))
        seqs += [event.seq for event in told if isinstance(event, StoredMessage) and event.is_last]
    assert seqs == list(range(1, 31))

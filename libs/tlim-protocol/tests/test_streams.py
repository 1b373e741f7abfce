"""The data of streams.py agrees with itself: every subject has a stream, every consumer its permissions."""

import pytest
from tlim_protocol.docs import example
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage, read_out_event
from tlim_protocol.registry import MsgType
from tlim_protocol.streams import CONSUMERS, PERMISSIONS, STORE_INBOX, STREAMS, ConsumerSpec, WhenFull, inbox_prefix
from tlim_protocol.subjects import out_message_id, subject_dead, subject_in, subject_out


def covers(pattern: str, subject: str) -> bool:
    """Tell whether a NATS subject pattern covers a subject: `*` one token, `>` the rest."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return len(given) > position
        if position >= len(given) or token not in {"*", given[position]}:
            return False
    return len(wanted) == len(given)


def may_publish(user: str, subject: str) -> bool:
    return any(covers(pattern, subject) for pattern in PERMISSIONS[user].publish)


@pytest.mark.parametrize("msg_type", MsgType)
def test_every_subject_of_every_type_is_kept_by_exactly_one_stream(msg_type: MsgType) -> None:
    for subject in (subject_in(msg_type, "s1"), subject_out(msg_type, "s1"), subject_dead(subject_in(msg_type, "s1"))):
        assert sum(covers(pattern, subject) for spec in STREAMS for pattern in spec.subjects) == 1


def test_whoever_waits_for_a_stream_is_told_that_it_is_full() -> None:
    waited_for = {consumer.stream for consumer in CONSUMERS}
    assert {spec.name for spec in STREAMS if spec.when_full is WhenFull.REFUSE_NEW} == waited_for


def test_only_the_store_says_what_is_committed_and_only_the_bridge_accepts_messages() -> None:
    out, accepted = subject_out(MsgType.TEXT, "u:alice:bob"), subject_in(MsgType.TEXT, "u:alice:bob")
    assert [user for user in PERMISSIONS if may_publish(user, out)] == ["message-store"]
    assert [user for user in PERMISSIONS if may_publish(user, accepted)] == ["xmpp-bridge"]


@pytest.mark.parametrize("spec", CONSUMERS, ids=lambda spec: spec.durable)
def test_a_consumer_is_pulled_acked_reset_and_its_stream_trimmed_by_its_own_user_only(spec: ConsumerSpec) -> None:
    name = f"{spec.stream}.{spec.durable}"
    consuming = (f"$JS.API.CONSUMER.MSG.NEXT.{name}", f"$JS.ACK.{name}.1.2", f"$JS.API.CONSUMER.RESET.{name}")
    for subject in (*consuming, f"$JS.API.STREAM.PURGE.{spec.stream}"):
        users = [user for user in PERMISSIONS if may_publish(user, subject) and user != "provision"]
        assert users == [spec.durable]


def test_nobody_removes_what_another_consumer_has_not_seen() -> None:
    assert len({spec.stream for spec in CONSUMERS}) == len(CONSUMERS)


def test_nobody_hears_the_replies_of_another() -> None:
    for user, allowed in PERMISSIONS.items():
        others = [other for other in PERMISSIONS if other != user]
        assert not any(
            covers(pattern, f"{inbox_prefix(other)}.abc.1") for pattern in allowed.subscribe for other in others
        )


def test_filters_follow_the_registry() -> None:
    assert any(covers(pattern, subject_in(MsgType.SESSION_ADDED, "s")) for pattern in STORE_INBOX.filter_subjects)
    assert not any(covers(pattern, subject_in(MsgType.FILE_UPLOADED, "f")) for pattern in STORE_INBOX.filter_subjects)


def test_out_events_read_back_by_kind_and_have_ids_of_their_own() -> None:
    delivery = StoredMessage(seq=7, stored_at=1, recipients=["bob"], envelope=example(MsgType.TEXT))
    answer = delivery.model_copy(update={"recipients": [], "reply_to": "alice@d/r", "received_at": 5})
    refusal = RejectedMessage(
        code=ErrorCode.USER_UNKNOWN,
        detail="no such user",
        msg_id="m1",
        msg_type=MsgType.TEXT,
        sender="alice",
        reply_to="alice@d/r",
        stanza_id="s",
        received_at=5,
        after_seq=7,
    )
    events: list[OutEvent] = [delivery, answer, refusal]
    assert [read_out_event(event.to_bytes()) for event in events] == events
    assert len({out_message_id(event) for event in events}) == 3


def test_every_stanza_of_the_same_millisecond_gets_an_answer_of_its_own() -> None:
    answer = StoredMessage(
        seq=7,
        stored_at=1,
        recipients=[],
        envelope=example(MsgType.TEXT),
        reply_to="alice@d/r",
        stanza_id="s" * 300_000,
        received_at=5,
    )
    others = [answer.model_copy(update={"reply_to": "alice@d/q"}), answer.model_copy(update={"stanza_id": "t"})]
    assert len({out_message_id(event) for event in [answer, *others]}) == 3
    assert len(out_message_id(answer)) < 100

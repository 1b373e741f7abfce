"""The data of streams.py agrees with itself: every subject has a stream, every consumer its permissions."""

import pytest
from tlim_protocol.docs import example
from tlim_protocol.errors import ErrorCode
from tlim_protocol.events import OutEvent, RejectedMessage, StoredMessage, read_out_event
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard
from tlim_protocol.mailboxes import MailboxNote, MailboxNotes
from tlim_protocol.registry import AUDIT_TYPES, CLIENT_TYPES, SESSION_TYPES, MsgType
from tlim_protocol.streams import (
    BRIDGE_OUTBOXES,
    CONSUMERS,
    PERMISSIONS,
    STORE_GROUPS,
    STORE_INBOXES,
    STREAMS,
    UNGROUPED_STORE_INBOX,
    ConsumerSpec,
    StreamName,
    WhenFull,
    inbox_prefix,
)
from tlim_protocol.subjects import (
    lease_of_bridge,
    lease_of_shard,
    out_message_id,
    piece_message_id,
    subject_answer,
    subject_dead,
    subject_in,
    subject_of_limits,
    subject_out,
)


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
    for subject in (subject_in(msg_type, "s1"), subject_out(msg_type, "bob"), subject_dead(subject_in(msg_type, "s1"))):
        assert sum(covers(pattern, subject) for spec in STREAMS for pattern in spec.subjects) == 1


def test_whoever_waits_for_a_stream_is_told_that_it_is_full() -> None:
    waited_for = {consumer.stream for consumer in CONSUMERS}
    assert {spec.name for spec in STREAMS if spec.when_full is WhenFull.REFUSE_NEW} == waited_for


def test_only_the_store_says_what_is_committed_and_only_the_bridge_accepts_messages() -> None:
    out, accepted = subject_out(MsgType.TEXT, "bob"), subject_in(MsgType.TEXT, "u:alice:bob")
    assert [user for user in PERMISSIONS if may_publish(user, out)] == ["message-store"]
    # the store sends dead letters their way again, to itself
    assert [user for user in PERMISSIONS if may_publish(user, accepted)] == ["message-store", "xmpp-bridge"]


@pytest.mark.parametrize("spec", [*CONSUMERS, UNGROUPED_STORE_INBOX], ids=lambda spec: spec.durable)
def test_a_consumer_is_pulled_acked_reset_and_its_stream_trimmed_by_its_own_user_only(spec: ConsumerSpec) -> None:
    name = f"{spec.stream}.{spec.durable}"
    consuming = (f"$JS.API.CONSUMER.MSG.NEXT.{name}", f"$JS.ACK.{name}.1.2", f"$JS.API.CONSUMER.RESET.{name}")
    unpinning = (f"$JS.API.CONSUMER.UNPIN.{name}",) if spec.group else ()
    for subject in (*consuming, *unpinning, f"$JS.API.STREAM.PURGE.{spec.stream}"):
        users = [user for user in PERMISSIONS if may_publish(user, subject) and user != "provision"]
        assert users == ["xmpp-bridge" if spec in BRIDGE_OUTBOXES else "message-store"]


@pytest.mark.parametrize("msg_type", MsgType)
def test_nobody_removes_what_another_consumer_has_not_seen(msg_type: MsgType) -> None:
    people = [f"user{number}" for number in range(100)]
    for subject in (subject_in(msg_type, "s1"), *(subject_out(msg_type, one) for one in people)):
        (stream,) = (spec.name for spec in STREAMS if any(covers(pattern, subject) for pattern in spec.subjects))
        readers = [
            spec for spec in CONSUMERS
            if spec.stream is stream and any(covers(pattern, subject) for pattern in spec.filter_subjects)
        ]  # fmt: skip
        assert len(readers) == (0 if msg_type in AUDIT_TYPES and "tlim.in" in subject else 1)


def test_a_persons_deliveries_are_in_one_shard_and_all_shards_have_people() -> None:
    people = [f"user{number}" for number in range(1_000)]
    assert {delivery_shard(one) for one in people} == set(range(DELIVERY_SHARDS))
    for one in people:
        (pattern,) = BRIDGE_OUTBOXES[delivery_shard(one)].filter_subjects
        assert all(covers(pattern, subject_out(msg_type, one)) for msg_type in MsgType)


def test_only_bridges_hold_leases_and_hear_each_others_answers() -> None:
    for subject in (lease_of_shard(3), lease_of_bridge("b1"), subject_answer("b1")):
        assert [user for user in PERMISSIONS if may_publish(user, subject)] == ["xmpp-bridge"]
        hearing = [user for user in PERMISSIONS if any(covers(one, subject) for one in PERMISSIONS[user].subscribe)]
        assert hearing == ["xmpp-bridge"]
    leases = next(spec for spec in STREAMS if spec.name is StreamName.LEASES)
    assert all(covers(leases.subjects[0], subject) for subject in (lease_of_shard(3), lease_of_bridge("b1")))
    assert leases.per_subject == 1


def test_only_the_instances_of_a_service_hear_what_they_count_and_tell_it() -> None:
    for service in ("session-api", "file-api", "xmpp-bridge"):
        subject = subject_of_limits(service)
        assert [user for user in PERMISSIONS if may_publish(user, subject)] == [service]
        assert [user for user in PERMISSIONS if any(covers(one, subject) for one in PERMISSIONS[user].subscribe)] == [
            service
        ]
        assert not any(covers(pattern, subject) for spec in STREAMS for pattern in spec.subjects)


def test_nobody_hears_the_replies_of_another() -> None:
    for user, allowed in PERMISSIONS.items():
        others = [other for other in PERMISSIONS if other != user]
        assert not any(
            covers(pattern, f"{inbox_prefix(other)}.abc.1") for pattern in allowed.subscribe for other in others
        )


def test_all_of_a_conversation_comes_to_one_group_and_every_group_has_conversations() -> None:
    used: set[int] = set()
    for conversation in (f"session{number}" for number in range(1_000)):
        subjects = [subject_in(kind, conversation) for kind in (*CLIENT_TYPES, *SESSION_TYPES)]
        groups = [
            group for group, spec in enumerate(STORE_INBOXES)
            if any(covers(pattern, subject) for pattern in spec.filter_subjects for subject in subjects)
        ]  # fmt: skip
        assert len(groups) == 1
        used.update(groups)
    assert used == set(range(STORE_GROUPS))


def test_filters_follow_the_registry() -> None:
    inbox = next(spec for spec in STREAMS if spec.name is StreamName.IN)
    for filters in (inbox.subjects, UNGROUPED_STORE_INBOX.filter_subjects):
        assert any(covers(pattern, subject_in(MsgType.SESSION_ADDED, "s")) for pattern in filters)
        assert not any(covers(pattern, subject_in(MsgType.FILE_UPLOADED, "f")) for pattern in filters)


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


def test_a_piece_has_the_same_id_again_only_if_it_is_for_the_same_people() -> None:
    ids = {
        piece_message_id("seq:7:stored", 1),
        piece_message_id("seq:7:stored", 2),
        piece_message_id("seq:7:stored", 1, ["ann"]),
        piece_message_id("seq:7:stored", 1, ["ann", "ben"]),
    }
    assert len(ids) == 4
    assert piece_message_id("seq:7:stored", 1, ["ben", "ann"]) in ids


def test_a_note_about_somebody_of_another_shard_cannot_be_made() -> None:
    shard = delivery_shard("bob")
    assert MailboxNotes(shard=shard, term=1, notes=[MailboxNote(user_id="bob")]).notes
    with pytest.raises(ValueError, match="whose shard is not"):
        MailboxNotes(shard=(shard + 1) % DELIVERY_SHARDS, term=1, notes=[MailboxNote(user_id="bob")])

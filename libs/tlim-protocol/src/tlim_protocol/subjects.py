"""NATS subjects, keyed by msg_type and shard, and the `Nats-Msg-Id` values that make publishing idempotent."""

import hashlib
import zlib
from collections.abc import Collection
from enum import StrEnum
from urllib.parse import quote

from tlim_protocol.events import OutEvent, StoredMessage
from tlim_protocol.identity import delivery_shard, shard_of
from tlim_protocol.registry import MsgType

ALL_OUT = "tlim.out.>"
ALL_DEAD = "tlim.dead.>"
ALL_LEASES = "tlim.lease.>"
ALL_ANSWERS = "tlim.answer.*"


class Rpc(StrEnum):
    """Request-reply subjects; their payloads are in tlim_protocol.events."""

    SESSION_GET = "tlim.rpc.session.get"
    SESSION_CHANGES = "tlim.rpc.session.changes"
    USER_MEET = "tlim.rpc.user.meet"
    USER_DEACTIVATED = "tlim.rpc.user.deactivated"
    AUDIT_NOTE = "tlim.rpc.audit.note"
    FILE_CHECK = "tlim.rpc.file.check"
    MESSAGE_GRANTS = "tlim.rpc.message.grants"
    MESSAGE_RECALLED = "tlim.rpc.message.recalled"
    MAILBOX_NOTE = "tlim.rpc.mailbox.note"
    MAILBOX_LIVE = "tlim.rpc.mailbox.live"
    MAILBOX_MISSED = "tlim.rpc.mailbox.missed"
    CLOCK = "tlim.rpc.clock"
    OPERATIONS_REPORT = "tlim.rpc.operations.report"
    OPERATIONS_TRAIL = "tlim.rpc.operations.trail"


def subject_in(msg_type: MsgType, conversation_id: str) -> str:
    """Return the subject for a message that was accepted for processing: `tlim.in.<msg_type>.<shard>`."""
    return f"tlim.in.{msg_type.value}.{shard_of(conversation_id)}"


def subject_out(msg_type: MsgType, user_id: str) -> str:
    """Return the subject for what the person's devices get: `tlim.out.<msg_type>.<delivery shard>`."""
    return subject_of_shard(msg_type, delivery_shard(user_id))


def subject_of_shard(msg_type: MsgType, shard: int) -> str:
    """Return the subject for what the devices of a delivery shard's people get: `tlim.out.<msg_type>.<shard>`."""
    return f"tlim.out.{msg_type.value}.{shard}"


def every_out(shard: int) -> str:
    """Return the filter for one delivery shard of `tlim.out`, over all types."""
    return f"tlim.out.*.{shard}"


def lease_of_shard(shard: int) -> str:
    """Return the subject of a delivery shard's lease. Its newest message names the bridge that has the shard."""
    return f"tlim.lease.shard.{shard}"


def lease_of_bridge(instance: str) -> str:
    """Return the subject on which a bridge says that it is there."""
    return f"tlim.lease.bridge.{instance}"


def subject_answer(instance: str) -> str:
    """Return the plain NATS subject for out events that another bridge has received, and this one waits for."""
    return f"tlim.answer.{instance}"


def subject_of_limits(service: str) -> str:
    """Return the plain NATS subject on which the instances of a service tell each other what they have counted."""
    return f"tlim.limit.{service}"


def type_in(subject: str) -> str:
    """Return the msg_type in a subject of `tlim.in` or `tlim.out`; empty if the subject has fewer than three parts."""
    parts = subject.split(".")
    return parts[2] if len(parts) > 2 else ""


def subject_dead(original_subject: str) -> str:
    """Return the dead-letter subject for messages of `original_subject`: `tlim.dead.<msg_type>`."""
    return f"tlim.dead.{type_in(original_subject) or 'unknown'}"


def every_in(msg_type: MsgType) -> str:
    """Return the filter for one type over all shards of `tlim.in`."""
    return f"tlim.in.{msg_type.value}.*"


def every_in_shard(shard: int) -> str:
    """Return the filter for one shard of `tlim.in`, over all types."""
    return f"tlim.in.*.{shard}"


def session_event_id(session_id: str, version: int) -> str:
    """Return the `Nats-Msg-Id` of a session event: each version of a session is published once."""
    return f"session:{quote(session_id, safe='')}:{version}"


def out_message_id(event: OutEvent) -> str:
    """Return the `Nats-Msg-Id` of an out event. It is the same however often the store has to publish the event.

    A delivery has `seq:<seq>:stored`. A refusal, and the confirmation of a resend, also name the stanza that they
    answer, because every stanza gets its own answer. Two devices may send the same message within a millisecond.
    """
    if isinstance(event, StoredMessage):
        again = "" if event.recipients else f":{_stanza_of(event)}"
        return f"seq:{event.seq}:stored{again}"
    # A user id holds no colon and msg_id is percent-encoded, so two messages never have the same value.
    return f"refused:{quote(event.sender, safe='')}:{quote(event.msg_id, safe='')}:{_stanza_of(event)}"


def piece_message_id(message_id: str, shard: int, part: Collection[str] = ()) -> str:
    """Return the `Nats-Msg-Id` of a piece of a delivery; see StoredMessage. `message_id` is that of the whole.

    `part`: the recipients, if they are not all recipients of the shard. A shard may be halved differently when the
    delivery is published again. So such a piece is named after its recipients, in any order: JetStream may drop a piece
    as a duplicate only if these very people have theirs.
    """
    names = "\n".join(sorted(part))
    return f"{message_id}:{shard}{f':{hashlib.sha256(names.encode()).hexdigest()}' if part else ''}"


def _stanza_of(event: OutEvent) -> str:
    # Clients choose their stanza ids, of any length. A header gets only their checksum.
    return f"{event.received_at}:{zlib.crc32(f'{event.reply_to} {event.stanza_id}'.encode()):08x}"

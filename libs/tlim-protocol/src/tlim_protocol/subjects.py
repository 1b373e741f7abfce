"""NATS subjects, keyed by msg_type and shard, and the `Nats-Msg-Id` values that make publishing idempotent."""

import zlib
from enum import StrEnum
from urllib.parse import quote

from tlim_protocol.events import OutEvent, StoredMessage
from tlim_protocol.identity import shard_of
from tlim_protocol.registry import MsgType

ALL_OUT = "tlim.out.>"
ALL_DEAD = "tlim.dead.>"


class Rpc(StrEnum):
    """Request-reply subjects; the payloads stand in tlim_protocol.events."""

    SESSION_GET = "tlim.rpc.session.get"
    SESSION_CHANGES = "tlim.rpc.session.changes"
    USER_MEET = "tlim.rpc.user.meet"
    AUDIT_NOTE = "tlim.rpc.audit.note"
    FILE_CHECK = "tlim.rpc.file.check"
    MESSAGE_GRANTS = "tlim.rpc.message.grants"
    MESSAGE_RECALLED = "tlim.rpc.message.recalled"
    CLOCK = "tlim.rpc.clock"


def subject_in(msg_type: MsgType, conversation_id: str) -> str:
    """Return where something accepted for processing is published: `tlim.in.<msg_type>.<shard>`."""
    return f"tlim.in.{msg_type.value}.{shard_of(conversation_id)}"


def subject_out(msg_type: MsgType, conversation_id: str) -> str:
    """Return where a committed fact, or a refusal, is published: `tlim.out.<msg_type>.<shard>`."""
    return f"tlim.out.{msg_type.value}.{shard_of(conversation_id)}"


def type_in(subject: str) -> str:
    """Return the msg_type that a subject of `tlim.in` or `tlim.out` names, empty for any other subject."""
    parts = subject.split(".")
    return parts[2] if len(parts) > 2 else ""


def subject_dead(original_subject: str) -> str:
    """Return the dead-letter subject of what arrived on `original_subject`: `tlim.dead.<msg_type>`."""
    return f"tlim.dead.{type_in(original_subject) or 'unknown'}"


def every_in(msg_type: MsgType) -> str:
    """Return the filter for one type over all shards of `tlim.in`."""
    return f"tlim.in.{msg_type.value}.*"


def in_message_id(sender: str, msg_id: str) -> str:
    """Return the `Nats-Msg-Id` of an accepted message: `sender:msg_id`.

    A user id holds no colon and msg_id is percent-encoded, so two different messages never share one.
    """
    return f"{quote(sender, safe='')}:{quote(msg_id, safe='')}"


def session_event_id(session_id: str, version: int) -> str:
    """Return the `Nats-Msg-Id` of a session event: a version of a session is told once."""
    return f"session:{quote(session_id, safe='')}:{version}"


def out_message_id(event: OutEvent) -> str:
    """Return the `Nats-Msg-Id` of an out event, the same however often the store has to publish it.

    A delivery is `seq:<seq>:stored`; a resend's confirmation and a refusal add which stanza they answer, because each
    gets its own answer, also where two devices send the same message within a millisecond.
    """
    if isinstance(event, StoredMessage):
        again = "" if event.recipients else f":{_stanza_of(event)}"
        return f"seq:{event.seq}:stored{again}"
    return f"refused:{in_message_id(event.sender, event.msg_id)}:{_stanza_of(event)}"


def _stanza_of(event: OutEvent) -> str:
    # clients choose their stanza ids, of any length: a header takes a checksum only
    return f"{event.received_at}:{zlib.crc32(f'{event.reply_to} {event.stanza_id}'.encode()):08x}"

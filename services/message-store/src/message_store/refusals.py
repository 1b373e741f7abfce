"""Telling senders why a message of theirs was not stored."""

from tlim_protocol.errors import TlimError
from tlim_protocol.events import RejectedMessage

from message_store.values import ArrivedMessage


def refusal_of(message: ArrivedMessage, error: TlimError, newest: int) -> RejectedMessage:
    """Return what the sender is told; everything up to the seq `newest` is published before it."""
    return RejectedMessage(
        code=error.code,
        detail=error.detail,
        field=error.field,
        msg_id=message.envelope.msg_id,
        msg_type=message.envelope.msg_type,
        sender=message.sender,
        reply_to=message.reply_to,
        stanza_id=message.stanza_id,
        received_at=message.received_at,
        after_seq=newest,
        via=message.via,
    )

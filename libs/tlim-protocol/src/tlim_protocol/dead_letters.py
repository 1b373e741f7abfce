"""Dead letters: copies of messages that can never be processed, in `TLIM_DEAD`, with the reason in their headers."""

import json
from enum import StrEnum

from tlim_protocol.identity import MAX_ID

REASON_HEADER = "Tlim-Reason"
"""A sentence for the operator."""

CAUSE_HEADER = "Tlim-Cause"
"""A DeadCause: the same for all messages with the same kind of fault, so that they can be counted."""

SUBJECT_HEADER = "Tlim-Subject"
"""The subject of the message. It goes there again when an operator says that the cause is mended."""

PUBLISHED_HEADER = "Tlim-Published"
"""On a letter that was sent again into `TLIM_OUT`: what the stream told of published messages just before. The event
in the letter is older, and must not tell it."""

_AGAIN = "redrive:"


class DeadCause(StrEnum):
    """Why a message can never be processed; a label of `tlim_dead_letters_total`, so there are few."""

    UNREADABLE = "unreadable"  # the payload is no event of ours
    TOO_LARGE = "too-large"
    INVALID = "invalid"  # an event of ours that the bridge would never have accepted
    UNSTORABLE = "unstorable"  # our rules or PostgreSQL fail on it
    UNDELIVERABLE = "undeliverable"  # the XMPP server ends the connection at its stanza


def sent_again_id(place: int) -> str:
    """Return the `Nats-Msg-Id` under which the letter at this place of `TLIM_DEAD` goes its way again."""
    return f"{_AGAIN}{place}"


def is_sent_again(message_id: str) -> bool:
    """Tell whether a message with this `Nats-Msg-Id` is a dead letter that was sent again."""
    return message_id.startswith(_AGAIN)


def msg_id_in(data: bytes | str) -> str | None:
    """Return the msg_id in an envelope, or in a payload of `tlim.in` or `tlim.out`, if it can be read at all."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    envelope = value.get("envelope", value) if isinstance(value, dict) else None
    msg_id = envelope.get("msg_id") if isinstance(envelope, dict) else None
    return msg_id[:MAX_ID] if isinstance(msg_id, str) else None

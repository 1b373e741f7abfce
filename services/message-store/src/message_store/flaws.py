"""What no bridge accepts: a payload of TLIM_IN that came from somewhere else."""

from tlim_protocol.body import check_elements
from tlim_protocol.errors import TlimError
from tlim_protocol.events import AcceptedMessage
from tlim_protocol.identity import normalize_user_id
from tlim_protocol.registry import REGISTRY


def flaw_of(message: AcceptedMessage) -> str | None:
    """Return why a payload cannot be what the bridge accepts, or None.

    The bridge has checked all of this; a payload that fails here came from somewhere else.
    """
    envelope = message.envelope
    if not REGISTRY[envelope.msg_type].sent_by_clients:
        return f"{envelope.msg_type} is sent by the server only"
    if envelope.msg_from != message.sender:
        return "the envelope names another sender"
    if not envelope.body:
        return "the body is empty"
    try:
        check_elements(envelope.msg_type, envelope.body)
    except TlimError as error:
        return error.detail
    if envelope.msg_to is None and envelope.session_id is None:
        return "neither a receiver nor a session"
    # in a session we do not check `to`: nothing is sent there, and clients may write anything or leave it empty
    receiver = envelope.msg_to if envelope.session_id is None else None
    are_ids = _is_user_id(message.sender) and (receiver is None or _is_user_id(receiver))
    return None if are_ids else "the sender or the receiver is no user id"


def _is_user_id(text: str) -> bool:
    try:
        return normalize_user_id(text) == text
    except TlimError:
        return False

"""The rules of receipts and recalls (MTC-*): which messages they may name, and what is news in them."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from tlim_protocol.errors import ErrorCode, TlimError, quoted

from message_store.values import Place


class Named(NamedTuple):
    """An element of a receipt or recall, and the chat messages of its conversation that have its msg_id.

    There are several only when several people used the same msg_id in one group.
    """

    element: dict[str, Any]
    places: tuple[Place, ...]

    @property
    def msg_id(self) -> str:
        """The msg_id that the element names."""
        return str(self.element["msg_id"])

    def of(self, senders: Collection[str]) -> "Named":
        """Return the same with the messages of these senders only."""
        return Named(self.element, tuple(place for place in self.places if place.sender in senders))

    def without(self, sender: str) -> "Named":
        """Return the same without the messages of this sender."""
        return Named(self.element, tuple(place for place in self.places if place.sender != sender))


def reported(named: Sequence[Named], reporter: str) -> list[Named]:
    """Return the messages of others that a receipt reports.

    Raises MSG_ID_UNKNOWN when any element names no such message, so that a receipt is never half done.
    """
    found = [one.without(reporter) for one in named]
    _require_all(found, "is no message to you in this conversation")
    return found


def recalled(named: Sequence[Named], author: str, *, arrived_at: int, window: int) -> list[Named]:
    """Return the author's own messages that a recall names; all of them or none.

    `arrived_at` is when the server got the recall, on the clock that also dated the messages. `window` is how long
    after storing a recall may come. Both are in ms, and a recall exactly at the limit is in time. A recalled message
    may be recalled again at any time. Raises NOT_ALLOWED, MSG_ID_UNKNOWN, RECALL_TOO_LATE, in this order.
    """
    own = [one.of({author}) for one in named]
    for before, after in zip(named, own, strict=True):
        if before.places and not after.places:
            detail = f"{quoted(before.msg_id)} is somebody else's message"
            raise TlimError(ErrorCode.NOT_ALLOWED, detail, field="msg_id")
    _require_all(own, "is no message in this conversation")
    for one in own:
        for place in one.places:
            if not place.is_recalled and arrived_at - place.stored_at > window:
                detail = f"{quoted(one.msg_id)} was stored more than {window // 1000} s ago"
                raise TlimError(ErrorCode.RECALL_TOO_LATE, detail, field="msg_id")
    return own


def _require_all(found: Sequence[Named], sentence: str) -> None:
    for one in found:
        if not one.places:
            raise TlimError(ErrorCode.MSG_ID_UNKNOWN, f"{quoted(one.msg_id)} {sentence}", field="msg_id")

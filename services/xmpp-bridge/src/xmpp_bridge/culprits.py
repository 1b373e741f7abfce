"""Finds the stanza at which the XMPP server ends the connection again and again, so that all others get through.

A server ends the stream at a stanza that it does not take: one over its limit (Openfire: 1 MiB by default), or one that
it calls malformed. Everything unacknowledged comes again then, that stanza among it, and nobody would get anything.
"""

from tlim_runtime.consumer import Incoming

LOSSES = 2
"""Lost connections over the same messages, after which their stanzas are sent one at a time: one is no pattern."""

KEPT = 1_000
"""Messages that are remembered: one that was delivered lately can come once more after another loss."""

_Message = tuple[int, int]
"""Its place in the stream and the hash of its data: a stream that was emptied gives the same places anew."""


class Culprits:
    """What is known of stanzas that end the connection.

    Found is only a stanza that was alone on its way when the connection was lost, twice in a row, and each time over a
    connection that had just answered a ping. A server that is killed at such a moment does not condemn a message. With
    it goes every stanza of the same message that is as large: a group of thousands costs no more losses than a pair.
    """

    def __init__(self) -> None:
        self._losses = 0
        self._until = 0
        self._suspect: tuple[_Message, int] | None = None
        self._found: dict[_Message, int] = {}  # in characters: a stanza of that size is too large

    @property
    def are_feared(self) -> bool:
        """Whether stanzas must be sent one at a time now."""
        return self._losses >= LOSSES

    def note_loss(self, first: int, last: int) -> None:
        """Note that the connection was lost while the messages from `first` to `last` in the stream were delivered."""
        if first > self._until:
            self._losses = 0
        self._losses += 1
        self._until = max(self._until, last)

    def note_passed(self, last: int) -> None:
        """Note that everything up to `last` is delivered, but for what was found."""
        if last >= self._until:
            self._losses = 0
            self._suspect = None

    def suspect(self, message: Incoming, stanza: str) -> None:
        """Note that the connection was lost with this stanza of a message alone on its way."""
        suspect = (_name(message), hash(stanza))
        if suspect == self._suspect:
            self._found[suspect[0]] = len(stanza)
            if len(self._found) > KEPT:
                del self._found[next(iter(self._found))]
        self._suspect = suspect

    def is_found(self, message: Incoming, stanza: str) -> bool:
        """Whether this stanza of a message ends the connection."""
        return bool(self._found) and len(stanza) >= self._found.get(_name(message), len(stanza) + 1)


def _name(message: Incoming) -> _Message:
    return message.stream_seq, hash(message.data)

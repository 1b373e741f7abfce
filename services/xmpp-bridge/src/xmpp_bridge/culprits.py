"""Finds the stanza at which the XMPP server ends the connection again and again, so that all others get through.

A server ends the stream at a stanza that it does not take: one over its limit (Openfire: 1 MiB by default), or one that
it calls malformed. Everything unacknowledged comes again then, that stanza among it, and nobody would get anything.
"""

from collections import deque

LOSSES = 2
"""Lost connections over the same messages, after which their stanzas are sent one at a time: one is no pattern."""

KEPT = 1_000
"""Culprits that are remembered: what was delivered lately, a culprit too, can come once more after another loss."""

_Stanza = tuple[int, int]
"""The place of its message in the stream, and the hash of its text: a message has a stanza for each receiver."""


class Culprits:
    """What is known of stanzas that end the connection.

    Found is only a stanza that was alone on its way when the connection was lost, twice in a row, and each time over a
    connection that had just answered a ping. A server that is killed at such a moment does not condemn a message.
    """

    def __init__(self) -> None:
        self._losses = 0
        self._until = 0
        self._suspect: _Stanza | None = None
        self._found: deque[_Stanza] = deque(maxlen=KEPT)

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

    def suspect(self, place: int, stanza: str) -> None:
        """Note that the connection was lost with this stanza alone on its way."""
        suspect = (place, hash(stanza))
        if suspect == self._suspect:
            self._found.append(suspect)
        self._suspect = suspect

    def is_found(self, place: int, stanza: str) -> bool:
        """Whether this stanza ends the connection."""
        return bool(self._found) and (place, hash(stanza)) in self._found

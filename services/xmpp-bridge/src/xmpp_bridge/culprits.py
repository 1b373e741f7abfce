"""Finds the stanza at which the XMPP server ends the connection again and again, so that all others get through.

A server ends the stream when it does not accept a stanza: the stanza is over its limit (Openfire: 1 MiB by default), or
the server calls it malformed. Then everything unacknowledged is delivered again, including that stanza. Without this
module the connection would be lost at it for ever, and nobody would get any message.
"""

import asyncio
from dataclasses import dataclass

from tlim_runtime.consumer import Incoming

LOSSES = 2
"""After this many lost connections over the same messages, their stanzas are sent one at a time. A single loss can have
any cause."""

KEPT = 1_000
"""How many culprits are remembered. A message that is done can still be delivered again after the next loss."""

_Message = tuple[int, int]
"""A message's place in the stream, and the hash of its data. A stream that was emptied uses the same places again, so
the place alone is not enough."""


@dataclass(slots=True)
class _Losses:
    count: int = 0
    until: int = 0  # in the stream: the last message that was being delivered


class Culprits:
    """What is known of stanzas that end the connection. All consumers that share the connection share this.

    A stanza is found guilty when the connection was lost twice in a row while this stanza alone was on its way. Each
    time the connection had just answered a ping. One loss is not enough: the server may have been killed just then.
    Stanzas of another consumer would be on their way beside it, so each consumer holds `alone` meanwhile. Two consumers
    with a culprit each end the connection by turns, so each has a suspect of its own.

    With the guilty stanza, all stanzas of the same message that are at least as large are left out too. So a message
    to a group of thousands costs no more lost connections than a message to one person.
    """

    def __init__(self) -> None:
        self.alone = asyncio.Lock()
        self._here: set[str] = set()  # consumers that are open
        self._losses: dict[str, _Losses] = {}  # by consumer; a culprit can come back with a shard
        self._suspects: dict[str, tuple[_Message, int]] = {}  # by consumer
        self._found: dict[_Message, int] = {}  # characters: this message's stanzas of that size or more are left out

    @property
    def are_feared(self) -> bool:
        """Whether stanzas must be sent one at a time now."""
        return any(losses.count >= LOSSES for consumer, losses in self._losses.items() if consumer in self._here)

    def opened(self, consumer: str, delivered: int) -> None:
        """Note that this bridge delivers what the consumer gets.

        Messages up to `delivered` in the stream come again; 0: none. Another bridge may have delivered what was lost
        here, and a stream that was emptied begins at 1.
        """
        self._here.add(consumer)
        losses = self._losses.get(consumer)
        if losses is not None:
            losses.until = min(losses.until, delivered)
            self.note_passed(consumer, 0)

    def closed(self, consumer: str) -> None:
        """Note that another bridge does: what is lost there slows nothing down here."""
        self._here.discard(consumer)

    def note_loss(self, consumer: str, first: int, last: int) -> None:
        """Note that the connection was lost while the messages from `first` to `last` in the stream were delivered."""
        losses = self._losses.setdefault(consumer, _Losses())
        if first > losses.until:
            losses.count = 0
        losses.count += 1
        losses.until = max(losses.until, last)

    def note_passed(self, consumer: str, last: int) -> None:
        """Note that everything up to `last` is delivered, except for the stanzas found guilty."""
        losses = self._losses.get(consumer)
        if losses is not None and last >= losses.until:
            del self._losses[consumer]
            self._suspects.pop(consumer, None)

    def suspect(self, consumer: str, message: Incoming, stanza: str) -> None:
        """Note that the connection was lost with this stanza of a message alone on its way."""
        suspect = (_name(message), hash(stanza))
        if suspect == self._suspects.get(consumer):
            self._found[suspect[0]] = len(stanza)
            if len(self._found) > KEPT:
                del self._found[next(iter(self._found))]
        self._suspects[consumer] = suspect

    def is_found(self, message: Incoming, stanza: str) -> bool:
        """Whether this stanza of a message ends the connection."""
        return bool(self._found) and len(stanza) >= self._found.get(_name(message), len(stanza) + 1)


def _name(message: Incoming) -> _Message:
    return message.stream_seq, hash(message.data)

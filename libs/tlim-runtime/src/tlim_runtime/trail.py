"""The way of the last messages through this process, kept in memory: which steps they took, and when."""

from collections import deque
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

KEPT = 20_000
"""How many steps are kept: about 2 MB. On a busy system that is a minute, on a quiet one days."""


class Passed(StrEnum):
    """The steps of a message, in the order in which it takes them."""

    READ = "read"  # the bridge has read the stanza
    REFUSED = "refused"  # the bridge has told the sender why it does not take the message
    ACCEPTED = "accepted"  # JetStream has it
    FETCHED = "fetched"  # the store has it in a batch
    COMMITTED = "committed"
    PUBLISHED = "published"  # JetStream has it for delivery
    DELIVERED = "delivered"  # the XMPP server has taken over what goes to the people of a shard


class Note(NamedTuple):
    """A step that messages took together; `at` is in epoch milliseconds, of all or of each."""

    step: Passed
    msg_ids: Sequence[str]
    at: int | Sequence[int]
    detail: str


class Trail:
    """The last steps. A note costs the same for one message and for a batch; only a question looks at each message."""

    def __init__(self, kept: int = KEPT) -> None:
        self._notes: deque[Note] = deque()
        self._kept = kept
        self._count = 0

    def note(self, step: Passed, msg_ids: Sequence[str], at: int | Sequence[int], detail: str = "") -> None:
        """Note that messages took a step, at one time or each at its own."""
        if not msg_ids:
            return
        self._notes.append(Note(step, msg_ids, at, detail))
        self._count += len(msg_ids)
        while self._count > self._kept:
            self._count -= len(self._notes.popleft().msg_ids)

    def of(self, msg_id: str) -> Iterator[tuple[Passed, int, str]]:
        """Yield the steps of a message, their times and details, oldest note first."""
        for note in self._notes:
            for place, noted in enumerate(note.msg_ids):
                if noted == msg_id:
                    yield note.step, note.at if isinstance(note.at, int) else note.at[place], note.detail

"""The books of a run: what clients sent and got over XMPP, and what each person read over HTTP at the end.

They hold plain values, so that a test can forge them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What a message is."""

    TEXT = "text"
    RECEIVED = "received"
    READ = "read"
    RECALL = "recall"
    NOTICE = "notice"

    @property
    def is_receipt(self) -> bool:
        return self in {Kind.RECEIVED, Kind.READ}


def between(one: str, other: str) -> str:
    """Return the name of the conversation of two people, the same for both."""
    return "+".join(sorted((one, other)))


@dataclass(frozen=True)
class Item:
    """A message as somebody got or read it. `about` are the messages that a receipt or recall names.

    The `text` of a notice is the session's name.
    """

    msg_id: str
    sender: str
    kind: Kind
    conversation: str
    seq: int | None
    text: str = ""
    about: tuple[str, ...] = ()
    recalled: bool = False
    readers: frozenset[str] = frozenset()  # of a gathered receipt


@dataclass
class Sent:
    """A message that a client has sent, once or several times; `seqs` has the seq of each `stored`.

    `author` hears of a read in a large group, in a message of the server's that names several readers.
    """

    item: Item
    receivers: frozenset[str]
    author: str = ""
    seqs: list[int] = field(default_factory=list)
    stored_at: float | None = None


class Rename(NamedTuple):
    """A new name of a session, which the server has confirmed to the member that gave it. No two are equal."""

    conversation: str
    name: str
    members: frozenset[str]


@dataclass(frozen=True)
class Got:
    """A message that came to a device; `at` counts in seconds from the start of the run."""

    item: Item
    at: float
    delayed: bool = False


@dataclass
class Heard:
    """What came to one device of a person, in order: messages, copies, and the ends of catch-ups."""

    user_id: str
    label: str
    since: float = 0.0
    messages: list[Got] = field(default_factory=list)
    copies: list[Got] = field(default_factory=list)  # carbons of what another device of the person sent
    marks: list[tuple[float, int]] = field(default_factory=list)  # when a catch-up ended, and up to which seq
    broke: list[float] = field(default_factory=list)  # when it lost its connection, or left
    items: dict[Item, Item] = field(default_factory=dict, repr=False)

    def kept(self, item: Item) -> Item:
        """Return an equal item that is kept once for all devices: most messages come to many, and some come again."""
        return self.items.setdefault(item, item)


@dataclass
class Reading:
    """What a person reads over HTTP at the end."""

    sync: list[Item] = field(default_factory=list)
    history: dict[str, list[Item]] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)


@dataclass
class Book:
    """The account of a run. `wrong` holds what was noticed on the way."""

    sent: dict[str, Sent] = field(default_factory=dict)
    devices: list[Heard] = field(default_factory=list)
    readings: dict[str, Reading] = field(default_factory=dict)
    renames: list[Rename] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _items: dict[Item, Item] = field(default_factory=dict, repr=False)

    def device(self, user_id: str, label: str, since: float) -> Heard:
        """Return a new page for a device of a person."""
        heard = Heard(user_id, label, since, items=self._items)
        self.devices.append(heard)
        return heard

    def devices_of(self, user_id: str) -> Iterator[Heard]:
        """Yield the pages of a person's devices."""
        return (heard for heard in self.devices if heard.user_id == user_id)

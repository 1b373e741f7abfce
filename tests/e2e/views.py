"""The rows, sessions and views of the model (model.py), and how an answer of the server becomes one of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from tlim_protocol.envelope import Envelope
from tlim_protocol.registry import REGISTRY, MsgType

Conversation = frozenset[str] | str
"""Two user ids, or a session id."""


class Notice(NamedTuple):
    """What a notice says of a session: who was added and removed, and who is in it now."""

    added: frozenset[str]
    removed: frozenset[str]
    members: frozenset[str]

    def told_to(self, reader: str) -> dict[str, Any]:
        """Return what a reader is told; only people who were just added get the whole list."""
        whole = {"subscribers": self.members} if reader in self.added else {}
        return {"added": self.added, "removed": self.removed, "subscribers_count": len(self.members), **whole}


@dataclass
class Entry:
    """A row of the log, with the people who see it; the server writes a notice, which has no `envelope`."""

    conversation: Conversation
    sender: str
    envelope: Envelope | None
    audience: frozenset[str]
    is_news: bool = True
    """Whether anybody is told of it; this may be only the sender's other devices."""
    recalled: bool = False
    waits_for: set[str] = field(default_factory=set)
    """People who were away when it came, and still are."""
    withheld_from: set[str] = field(default_factory=set)
    """People who were away until it was recalled."""
    missed_by: frozenset[str] = frozenset()
    """People who were away when a receipt came: it comes later only if there are few."""
    notice: Notice | None = None

    @property
    def is_chat(self) -> bool:
        return self.envelope is not None and REGISTRY[self.envelope.msg_type].is_chat

    @property
    def sent_to(self) -> frozenset[str]:
        return self.audience if self.envelope is None else self.audience - {self.sender}


@dataclass
class Session:
    """A group: its creator, and its members in the order in which they came."""

    creator: str
    members: list[str]
    name: str
    deleted: bool = False
    places: dict[str, int] = field(default_factory=dict)
    """By user: the place in the log at which they joined; for past members, at which they left."""
    left_as: dict[str, str] = field(default_factory=dict)
    """By past member: the name of the session when they left."""


class Seen(NamedTuple):
    """A message as a reader sees it; a notice has the user who made the change, and what changed."""

    sender: str
    msg_id: str
    recalled: bool
    body: list[dict[str, Any]]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """Return what the server tells of it."""
        assert item["body"] or item["recalled"]
        if not REGISTRY[MsgType(item["msg_type"])].sent_by_clients:
            return cls(item["from"], "", item["recalled"], [_changes(item["body"][0])])
        return cls(item["from"], item["msg_id"], item["recalled"], item["body"])


class Overview(NamedTuple):
    """A conversation in a user's list."""

    name: str
    last: Seen | None
    unread: int
    session_name: str | None
    left: bool
    deleted: bool

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """Return what the server tells of it."""
        last = Seen.of(item["last"]) if item["last"] else None
        return cls(item["conversation"], last, item["unread"], item["session_name"], item["left"], item["deleted"])


def _changes(element: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a notice says, as Notice.told_to has it."""
    lists = {name: element[name] for name in ("added", "removed", "subscribers") if name in element}
    people = {name: frozenset(one["user_id"] for one in listed) for name, listed in lists.items()}
    return {**people, "subscribers_count": element["subscribers_count"]}

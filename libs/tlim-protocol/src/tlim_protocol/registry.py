"""The closed, append-only registry of message types. A new type is one new row here and nothing else.

Other code branches on what a type does (`Effect`), never on its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

from tlim_protocol.errors import ErrorCode


class MsgType(StrEnum):
    """The 17 message types of the specification, section 3."""

    TEXT = "MTT-000"
    IMAGE = "MTT-001"
    FILE = "MTT-002"
    VOICE = "MTT-003"
    GROUP_TEXT = "MTS-000"
    GROUP_IMAGE = "MTS-001"
    GROUP_FILE = "MTS-002"
    GROUP_VOICE = "MTS-003"
    GROUP_TODO = "MTS-004"
    SESSION_ADDED = "HTS-000"
    SESSION_CHANGED = "HTS-001"
    SESSION_DELETED = "HTS-002"
    RECEIVED = "MTC-000"
    READ = "MTC-001"
    RECALL = "MTC-002"
    FILE_DOWNLOADED = "HFO-000"
    FILE_UPLOADED = "HFO-001"


class Effect(Enum):
    """What a type does. Code branches on this, with `assert_never`, and not on the types themselves."""

    CHAT = auto()  # written by a user: stored with a `seq`, delivered, counted as unread
    RECEIPT = auto()  # reports messages of other users as received or read
    RECALL = auto()  # takes back messages of its own sender
    NOTICE = auto()  # from the server: a session has changed
    AUDIT = auto()  # from the server to the operator, not to users


_OF_CLIENTS = frozenset({Effect.CHAT, Effect.RECEIPT, Effect.RECALL})


class ElementField(NamedTuple):
    """A key of a body element: its name, the error code when it is empty, and whether it is required."""

    name: str
    code: ErrorCode
    required: bool = True
    bounded: bool = True  # an id, at most 64 characters; text may be as long as the stanza


_TEXT = ElementField("text", ErrorCode.BODY_EMPTY, bounded=False)
_FILE_ID = ElementField("file_id", ErrorCode.FILE_UNKNOWN)
_MSG_ID = ElementField("msg_id", ErrorCode.MSG_ID_UNKNOWN)
_SESSION_ID = ElementField("session_id", ErrorCode.SESSION_ID_EMPTY)
_ANY_SESSION_ID = ElementField("session_id", ErrorCode.SESSION_ID_EMPTY, required=False)


@dataclass(frozen=True)
class MessageKind:
    """One row of the registry: the title of a type, its effect, and the keys of its body elements.

    What follows from these is found out once: every message is asked about it a dozen times.
    """

    title: str
    effect: Effect
    element: tuple[ElementField, ...]
    example: Mapping[str, Any]
    summary: str
    says_read: bool = False  # of receipts: the messages were read, not only received

    @cached_property
    def is_chat(self) -> bool:
        """Whether it is a message between people. Only these are in the history and counted as unread."""
        return self.effect is Effect.CHAT

    @cached_property
    def sent_by_clients(self) -> bool:
        """Whether clients send it, over XMPP. All other types come from the server only."""
        return self.effect in _OF_CLIENTS

    @cached_property
    def is_group(self) -> bool:
        """Whether every element must name a session. Then only the `session_id` decides the receivers."""
        return _SESSION_ID in self.element

    @cached_property
    def names_session(self) -> bool:
        """Whether its elements may name a session: those of groups and notices, and some of receipts and recalls."""
        return self.is_group or self.effect is Effect.NOTICE or _ANY_SESSION_ID in self.element

    @cached_property
    def carries_file(self) -> bool:
        """Whether it shares a file, so that its receivers may download it."""
        return _FILE_ID in self.element


_SESSION = "2asd221ssa-ssd222aascxz-ssaa"
_ID = "fd6c568e-19ca-4e4e-9709-24dec0bb2b8d"
_SESSION_EXAMPLE = {
    "session_id": _SESSION, "session_name": "Project X", "actor": "alice", "version": 2, "subscribers_count": 3,
    "added": [{"user_id": "carol"}], "removed": [],
}  # fmt: skip
_FILE_EXAMPLE = {"file_id": _ID, "user_id": "alice"}
_DIRECT = "1:1: store, deliver to `to`"
_DIRECT_FILE = "1:1: store, deliver to `to`; `to` may download the file"
_GROUP = "store once, deliver to every subscriber but the sender, each once"
_GROUP_FILE = "store once, deliver to every other subscriber; the session may download the file"

REGISTRY: Mapping[MsgType, MessageKind] = MappingProxyType(
    {
        MsgType.TEXT: MessageKind("text", Effect.CHAT, (_TEXT,), {"text": "hello,world"}, _DIRECT),
        MsgType.IMAGE: MessageKind("image", Effect.CHAT, (_FILE_ID,), {"file_id": _ID}, _DIRECT_FILE),
        MsgType.FILE: MessageKind("file", Effect.CHAT, (_FILE_ID,), {"file_id": _ID}, _DIRECT_FILE),
        MsgType.VOICE: MessageKind("voice", Effect.CHAT, (_FILE_ID,), {"file_id": _ID}, _DIRECT_FILE),
        MsgType.GROUP_TEXT: MessageKind(
            "group text", Effect.CHAT, (_SESSION_ID, _TEXT), {"session_id": _SESSION, "text": "hello,world"}, _GROUP
        ),
        MsgType.GROUP_IMAGE: MessageKind(
            "group image", Effect.CHAT, (_SESSION_ID, _FILE_ID), {"session_id": _SESSION, "file_id": _ID}, _GROUP_FILE
        ),
        MsgType.GROUP_FILE: MessageKind(
            "group file", Effect.CHAT, (_SESSION_ID, _FILE_ID), {"session_id": _SESSION, "file_id": _ID}, _GROUP_FILE
        ),
        MsgType.GROUP_VOICE: MessageKind(
            "group voice", Effect.CHAT, (_SESSION_ID, _FILE_ID), {"session_id": _SESSION, "file_id": _ID}, _GROUP_FILE
        ),
        MsgType.GROUP_TODO: MessageKind(
            "group to-do", Effect.CHAT, (_SESSION_ID,), {"session_id": _SESSION, "title": "pay the invoice"}, _GROUP
        ),
        MsgType.SESSION_ADDED: MessageKind(
            "session added",
            Effect.NOTICE,
            (),
            _SESSION_EXAMPLE,
            "tell every subscriber; with the whole list if there are up to 200",
        ),
        MsgType.SESSION_CHANGED: MessageKind(
            "session changed",
            Effect.NOTICE,
            (),
            _SESSION_EXAMPLE,
            "tell every subscriber what changed, also the removed ones; the added ones get the list (up to 200)",
        ),
        MsgType.SESSION_DELETED: MessageKind(
            "session deleted", Effect.NOTICE, (), _SESSION_EXAMPLE, "tell every subscriber"
        ),
        MsgType.RECEIVED: MessageKind(
            "received receipt",
            Effect.RECEIPT,
            (_MSG_ID, _ANY_SESSION_ID),
            {"msg_id": _ID},
            "record delivered(user); forward to the author only",
        ),
        MsgType.READ: MessageKind(
            "read receipt",
            Effect.RECEIPT,
            (_MSG_ID, _ANY_SESSION_ID),
            {"msg_id": _ID},
            "record read(user); 1:1: forward to the author; group of up to 200: to all other subscribers; "
            "larger: to the authors only, gathered for up to 1 s",
            says_read=True,
        ),
        MsgType.RECALL: MessageKind(
            "recall",
            Effect.RECALL,
            (_MSG_ID, _ANY_SESSION_ID),
            {"msg_id": _ID},
            "author only, within the window: tombstone, audit row, forward to the receivers",
        ),
        MsgType.FILE_DOWNLOADED: MessageKind("file downloaded", Effect.AUDIT, (), _FILE_EXAMPLE, "audit"),
        MsgType.FILE_UPLOADED: MessageKind("file uploaded", Effect.AUDIT, (), _FILE_EXAMPLE, "audit"),
    }
)


def _types_with(*effects: Effect) -> tuple[MsgType, ...]:
    return tuple(msg_type for msg_type, row in REGISTRY.items() if row.effect in effects)


CLIENT_TYPES = _types_with(*_OF_CLIENTS)
SESSION_TYPES = _types_with(Effect.NOTICE)
AUDIT_TYPES = _types_with(Effect.AUDIT)

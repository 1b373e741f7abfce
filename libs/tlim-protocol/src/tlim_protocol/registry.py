"""The closed, append-only registry of message types: a new type is one new row here, nothing else."""

from collections.abc import Mapping
from enum import StrEnum
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


class ElementField(NamedTuple):
    """A key that a body element has: its name, the code answered when it is empty, whether it may be missing."""

    name: str
    code: ErrorCode
    required: bool = True
    bounded: bool = True  # an id, at most 64 characters; text may be as long as the stanza


_TEXT = ElementField("text", ErrorCode.BODY_EMPTY, bounded=False)
_FILE_ID = ElementField("file_id", ErrorCode.FILE_UNKNOWN)
_MSG_ID = ElementField("msg_id", ErrorCode.MSG_ID_UNKNOWN)
_SESSION_ID = ElementField("session_id", ErrorCode.SESSION_ID_EMPTY)
_ANY_SESSION_ID = ElementField("session_id", ErrorCode.SESSION_ID_EMPTY, required=False)


class MessageKind(NamedTuple):
    """One row of the registry: what a type is called, what its body elements hold, where it may come from."""

    title: str
    element: tuple[ElementField, ...]
    example: Mapping[str, Any]
    effect: str
    sent_by_clients: bool = True
    is_chat: bool = True
    """A message between people: stored with a `seq`, delivered, counted; receipts and recalls are not."""

    @property
    def is_group(self) -> bool:
        """Whether every element must name a session: routing is then by `session_id` only."""
        return _SESSION_ID in self.element

    @property
    def names_session(self) -> bool:
        """Whether its elements may name a session: always for groups, sometimes for receipts and recalls."""
        return self.is_group or _ANY_SESSION_ID in self.element

    @property
    def carries_file(self) -> bool:
        """Whether it shares a file, so that its receivers may download it."""
        return _FILE_ID in self.element


_SESSION = "2asd221ssa-ssd222aascxz-ssaa"
_ID = "fd6c568e-19ca-4e4e-9709-24dec0bb2b8d"
_SESSION_EXAMPLE = {"session_id": _SESSION, "subscribers": [{"user_id": "alice"}, {"user_id": "bob"}]}
_FILE_EXAMPLE = {"file_id": _ID, "user_id": "alice"}
_DIRECT = "1:1: store, deliver to `to`"
_DIRECT_FILE = "1:1: store, deliver to `to`; `to` may download the file"
_GROUP = "store once, deliver to every subscriber but the sender, each once"
_GROUP_FILE = "store once, deliver to every other subscriber; the session may download the file"

REGISTRY: Mapping[MsgType, MessageKind] = MappingProxyType(
    {
        MsgType.TEXT: MessageKind("text", (_TEXT,), {"text": "hello,world"}, _DIRECT),
        MsgType.IMAGE: MessageKind("image", (_FILE_ID,), {"file_id": _ID}, _DIRECT_FILE),
        MsgType.FILE: MessageKind("file", (_FILE_ID,), {"file_id": _ID}, _DIRECT_FILE),
        MsgType.VOICE: MessageKind("voice", (_FILE_ID,), {"file_id": _ID}, _DIRECT_FILE),
        MsgType.GROUP_TEXT: MessageKind(
            "group text", (_SESSION_ID, _TEXT), {"session_id": _SESSION, "text": "hello,world"}, _GROUP
        ),
        MsgType.GROUP_IMAGE: MessageKind(
            "group image", (_SESSION_ID, _FILE_ID), {"session_id": _SESSION, "file_id": _ID}, _GROUP_FILE
        ),
        MsgType.GROUP_FILE: MessageKind(
            "group file", (_SESSION_ID, _FILE_ID), {"session_id": _SESSION, "file_id": _ID}, _GROUP_FILE
        ),
        MsgType.GROUP_VOICE: MessageKind(
            "group voice", (_SESSION_ID, _FILE_ID), {"session_id": _SESSION, "file_id": _ID}, _GROUP_FILE
        ),
        MsgType.GROUP_TODO: MessageKind(
            "group to-do", (_SESSION_ID,), {"session_id": _SESSION, "title": "pay the invoice"}, _GROUP
        ),
        MsgType.SESSION_ADDED: MessageKind(
            "session added", (), _SESSION_EXAMPLE, "tell every subscriber", sent_by_clients=False, is_chat=False
        ),
        MsgType.SESSION_CHANGED: MessageKind(
            "session changed",
            (),
            _SESSION_EXAMPLE,
            "tell every subscriber, also the removed ones",
            sent_by_clients=False,
            is_chat=False,
        ),
        MsgType.SESSION_DELETED: MessageKind(
            "session deleted", (), _SESSION_EXAMPLE, "tell every subscriber", sent_by_clients=False, is_chat=False
        ),
        MsgType.RECEIVED: MessageKind(
            "received receipt",
            (_MSG_ID, _ANY_SESSION_ID),
            {"msg_id": _ID},
            "record delivered(user); forward to the author only",
            is_chat=False,
        ),
        MsgType.READ: MessageKind(
            "read receipt",
            (_MSG_ID, _ANY_SESSION_ID),
            {"msg_id": _ID},
            "record read(user); 1:1: forward to the author; group: to all other subscribers",
            is_chat=False,
        ),
        MsgType.RECALL: MessageKind(
            "recall",
            (_MSG_ID, _ANY_SESSION_ID),
            {"msg_id": _ID},
            "author only, within the window: tombstone, audit row, forward to the receivers",
            is_chat=False,
        ),
        MsgType.FILE_DOWNLOADED: MessageKind(
            "file downloaded", (), _FILE_EXAMPLE, "audit", sent_by_clients=False, is_chat=False
        ),
        MsgType.FILE_UPLOADED: MessageKind(
            "file uploaded", (), _FILE_EXAMPLE, "audit", sent_by_clients=False, is_chat=False
        ),
    }
)

CLIENT_TYPES = tuple(kind for kind, row in REGISTRY.items() if row.sent_by_clients)
FILE_TYPES = tuple(kind for kind, row in REGISTRY.items() if row.carries_file)
SESSION_TYPES = (MsgType.SESSION_ADDED, MsgType.SESSION_CHANGED, MsgType.SESSION_DELETED)

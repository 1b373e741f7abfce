"""What the services tell each other: JSON payloads on NATS, each a frozen model.

All user ids are normalised, all times are epoch milliseconds on the server's clock.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from tlim_protocol.envelope import Envelope
from tlim_protocol.errors import ErrorCode
from tlim_protocol.lenient import read_strict, write_json
from tlim_protocol.registry import MsgType


class Event(BaseModel):
    """The base of all payloads: immutable, read from and written to JSON bytes."""

    model_config = ConfigDict(frozen=True)

    def to_bytes(self) -> bytes:
        """Return the payload as it travels: UTF-8 JSON with wire names."""
        return self.model_dump_json(by_alias=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a payload; raises pydantic.ValidationError for anything else."""
        return cls.model_validate_json(data)


class Carrier(Event):
    """The base of payloads with an envelope: the numbers in its body travel as they were written."""

    def to_bytes(self) -> bytes:
        """Return the payload as it travels: UTF-8 JSON with wire names."""
        return write_json(self.model_dump(by_alias=True)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a payload; raises pydantic.ValidationError for anything else."""
        try:
            value = read_strict(data)
        except ValueError:
            return cls.model_validate_json(data)  # which says what is wrong with it
        return cls.model_validate(value)


class AcceptedMessage(Carrier):
    """`tlim.in.M*`: a valid message as the bridge took it over, not yet stored."""

    sender: str
    reply_to: str  # full JID of the sending resource: where `stored` and errors go
    stanza_id: str
    location: str
    received_at: int
    envelope: Envelope


class StoredMessage(Carrier):
    """`tlim.out.M*`: a committed message, to be delivered to `recipients` and confirmed to `reply_to`.

    Not `is_news`: only confirmed, as a resend, a receipt of what was read before, or what was recalled before it was
    delivered. News without recipients: the sender's other devices hear of it, and nobody else. No `reply_to`: published
    again from the database, nobody waits. `after_seq` of what has no recipients is that of RejectedMessage, since its
    own `seq` may be an old one.
    """

    kind: Literal["stored"] = "stored"
    seq: int
    stored_at: int
    recipients: list[str]
    envelope: Envelope
    reply_to: str | None = None
    stanza_id: str | None = None
    received_at: int | None = None
    after_seq: int | None = None
    is_news: bool = True


class RejectedMessage(Event):
    """`tlim.out.M*`: a message that was refused after it was accepted; nothing was stored, only the sender hears."""

    kind: Literal["rejected"] = "rejected"
    code: ErrorCode
    detail: str
    field: str | None = None
    msg_id: str
    msg_type: MsgType
    sender: str
    reply_to: str
    stanza_id: str
    received_at: int
    after_seq: int  # the newest seq that was published before it: lets the store find its place from any last event


OutEvent = StoredMessage | RejectedMessage

_OUT_EVENT: TypeAdapter[OutEvent] = TypeAdapter(Annotated[OutEvent, Field(discriminator="kind")])


def read_out_event(data: bytes) -> OutEvent:
    """Read any payload of `tlim.out.>`; raises pydantic.ValidationError for anything else."""
    try:
        value = read_strict(data)
    except ValueError:
        return _OUT_EVENT.validate_json(data)  # which says what is wrong with it
    return _OUT_EVENT.validate_python(value)


class SessionEvent(Event):
    """`tlim.in.HTS-*`: a session after a change, with all its subscribers, who changed it and what changed."""

    msg_type: MsgType
    session_id: str
    session_name: str
    session_type: int
    session_user: str
    version: int  # rises by one with every change of the session
    change: int = 0  # its place among the changes of all sessions, in the order of their commits; 0: not told
    actor: str
    at: int
    subscribers: list[str]
    added: list[str]
    removed: list[str]
    deleted: bool


class FileEvent(Event):
    """`tlim.in.HFO-*`: a file was uploaded or downloaded by a user; for audit."""

    msg_type: MsgType
    file_id: str
    user_id: str
    size: int  # bytes
    media_type: str
    at: int


class UserMeet(Event):
    """Request of `tlim.rpc.user.meet`: note that `seen` exist (first token, first message) and look `ask` up."""

    seen: list[str]
    ask: list[str]


class UsersKnown(Event):
    """Answer of `tlim.rpc.user.meet`: those of `ask` that the users directory has, deactivated ones left out."""

    known: list[str]


class AuditAction(StrEnum):
    """What an administrator can do; append-only, because entries are kept for ever."""

    USER_PUT = "user.put"
    USER_DEACTIVATED = "user.deactivated"
    USERS_IMPORTED = "users.imported"
    MESSAGE_SEND = "message.send"  # asked for: what became of it, the message tells
    ACCOUNTS_MAKE = "accounts.make"  # asked for: what became of it, `users.imported` tells
    ACCOUNT_RESET = "account.reset"  # asked for: another password of one user


class AuditNote(Event):
    """Request of `tlim.rpc.audit.note`: what an administrator asks another service for; answered when it is committed.

    `actor` is the subject of his token, `request_id` is the one in that service's log.
    """

    actor: str
    request_id: str
    action: AuditAction
    target: str
    detail: dict[str, JsonValue]


class FileQuestion(Event):
    """Request of `tlim.rpc.message.grants`: whether the user may read the file because of messages."""

    file_id: str
    user_id: str


class FileVerdict(Event):
    """Answer of `tlim.rpc.message.grants`.

    `allowed`: the user sees a message with the file that is not recalled. `recalled`: messages carried the file, and
    every one of them has been recalled; then its uploader may not read it either.
    """

    allowed: bool
    recalled: bool = False


class FilesQuestion(Event):
    """Request of `tlim.rpc.file.check`: which files exist, and which are uploads of the user named."""

    asks: list[FileQuestion]


class FilesAnswer(Event):
    """Answer to FilesQuestion: the ids of complete files that may be sent, and the pairs whose user is the uploader."""

    existing: list[str]
    owned: list[FileQuestion]


class SessionsQuestion(Event):
    """Request of `tlim.rpc.session.get`."""

    session_ids: list[str] = Field(min_length=1, max_length=10_000)


class SessionsAnswer(Event):
    """Answer of `tlim.rpc.session.get`: each session as its newest event told it, and the ids of which there is none.

    An answer may leave some out, to stay small: the asker asks again for those.
    """

    sessions: list[SessionEvent]
    unknown: list[str]


class SessionChangesQuestion(Event):
    """Request of `tlim.rpc.session.changes`: what happened to any session after change `after`."""

    after: int
    limit: int = Field(gt=0)


class SessionChanges(Event):
    """Answer of `tlim.rpc.session.changes`: events in the order of their changes, and whether there are more.

    At least the newest event of every session that changed; an answer may hold fewer than asked for, to stay small.
    """

    events: list[SessionEvent]
    more: bool


class SeqsQuestion(Event):
    """Request of `tlim.rpc.message.recalled`: which of these messages are recalled."""

    seqs: list[int]


class SeqsAnswer(Event):
    """Answer of `tlim.rpc.message.recalled`."""

    seqs: list[int]


class Time(Event):
    """Answer of `tlim.rpc.clock`: epoch milliseconds on the clock of message-store, which dates the log."""

    now: int

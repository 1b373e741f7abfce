"""The JSON payloads that services send each other over NATS. Each is a frozen model.

All user ids are normalised. All times are epoch milliseconds on the server's clock.
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
            return cls.model_validate_json(data)  # raises an error that names the fault
        return cls.model_validate(value)


class AcceptedMessage(Carrier):
    """`tlim.in.M*`: a valid message that the bridge has accepted, not yet stored."""

    sender: str
    reply_to: str  # full JID of the sending resource: where `stored` and errors go
    stanza_id: str
    location: str
    received_at: int
    envelope: Envelope
    via: str | None = None  # the instance of the bridge that accepted it


class StoredMessage(Carrier):
    """`tlim.out.M*`: a committed message, to be delivered to `recipients` and confirmed to `reply_to`.

    If `is_news` is false, the message is only confirmed to its sender. Examples are a resend, a receipt for messages
    that were read already, and a message that was recalled before its delivery. If `is_news` is true and there are no
    recipients, only the sender's other devices get it. Without `reply_to` it was published again from the database, and
    no device waits for a confirmation. `after_seq` is for messages without recipients: their own `seq` may be old, so
    it means the same as in RejectedMessage.

    A message is published in pieces: one for each delivery shard with recipients in it, and one for the shard of the
    sender, which may have no recipients. A piece is halved if it is too large for one payload. Only in one piece, in
    the sender's shard, is `tells_sender` true: the sender's devices hear of the message from that piece. Only that
    piece has `reply_to`, and `via` of the AcceptedMessage. All pieces have its `received_at`: deliveries are timed
    with it. `reach` says to how many people the whole message goes. `is_last`: no other piece follows.
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
    tells_sender: bool = True
    reach: int = 0
    is_last: bool = True
    via: str | None = None


class RejectedMessage(Event):
    """`tlim.out.M*`: a message that was refused after it was accepted. Nothing was stored; only the sender is told."""

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
    after_seq: int  # all up to it was published before: so the store finds its place from any last event
    via: str | None = None  # of the AcceptedMessage


OutEvent = StoredMessage | RejectedMessage

_OUT_EVENT: TypeAdapter[OutEvent] = TypeAdapter(Annotated[OutEvent, Field(discriminator="kind")])


def read_out_event(data: bytes) -> OutEvent:
    """Read any payload of `tlim.out.>`; raises pydantic.ValidationError for anything else."""
    try:
        value = read_strict(data)
    except ValueError:
        return _OUT_EVENT.validate_json(data)  # raises an error that names the fault
    return _OUT_EVENT.validate_python(value)


class SessionEvent(Event):
    """`tlim.in.HTS-*`: a session after a change, with all its subscribers, the actor and the changes."""

    msg_type: MsgType
    session_id: str
    session_name: str
    session_type: int
    session_user: str
    version: int  # rises by one with every change of the session
    change: int = 0  # numbers the changes of all sessions in the order of their commits; 0: unknown
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
    """Request of `tlim.rpc.user.meet`: note that the users `seen` exist, and look up the users `ask`.

    A user is seen with their first token or first message.
    """

    seen: list[str]
    ask: list[str]


class UsersKnown(Event):
    """Answer of `tlim.rpc.user.meet`: the users of `ask` that are in the directory and not deactivated."""

    known: list[str]


class UsersDeactivated(Event):
    """Answer of `tlim.rpc.user.deactivated`, whose request is empty: the users whose tokens no longer count."""

    users: list[str]


class AuditAction(StrEnum):
    """What an administrator can do; append-only, because entries are kept for ever."""

    USER_PUT = "user.put"
    USER_DEACTIVATED = "user.deactivated"
    USERS_IMPORTED = "users.imported"
    MESSAGE_SEND = "message.send"  # only the request; the message itself shows the outcome
    ACCOUNTS_MAKE = "accounts.make"  # only the request; `users.imported` shows the outcome
    ACCOUNT_CLOSE = "account.close"  # only the request; `user.deactivated` shows the outcome
    ACCOUNT_RESET = "account.reset"  # only the request for a new password of one user
    BACKUP_MADE = "backup.made"  # the backup is complete; its actor is the operator's command
    DEAD_LETTER_REDRIVEN = "dead-letter.redriven"  # only the request
    USER_EXPORTED = "user.exported"  # by the operator's command
    USER_ERASED = "user.erased"  # all of it is done; by the operator's command


class AuditNote(Event):
    """Request of `tlim.rpc.audit.note`: what an administrator asked another service to do.

    The answer comes when the note is committed. `actor` is the subject of the administrator's token. `request_id` is
    the id of their request in the log of that other service.
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

    `allowed`: the user can see a message that carries the file and is not recalled. `recalled`: all messages that
    carried the file have been recalled. Then the uploader may not read the file either.
    """

    allowed: bool
    recalled: bool = False


class FilesQuestion(Event):
    """Request of `tlim.rpc.file.check`: which files exist, and which of them the named user has uploaded."""

    asks: list[FileQuestion]


class FilesAnswer(Event):
    """Answer of `tlim.rpc.file.check`.

    `existing`: the ids of complete files that may be sent. `owned`: the questions whose user is the file's uploader.
    """

    existing: list[str]
    owned: list[FileQuestion]


class SessionsQuestion(Event):
    """Request of `tlim.rpc.session.get`."""

    session_ids: list[str] = Field(min_length=1, max_length=10_000)


class SessionsAnswer(Event):
    """Answer of `tlim.rpc.session.get`: the newest event of each session, and the ids of unknown sessions.

    An answer may leave out some sessions to stay small. The asker asks again for these.
    """

    sessions: list[SessionEvent]
    unknown: list[str]


class SessionChangesQuestion(Event):
    """Request of `tlim.rpc.session.changes`: the changes of all sessions after change number `after`."""

    after: int
    limit: int = Field(gt=0)


class SessionChanges(Event):
    """Answer of `tlim.rpc.session.changes`: events in the order of their changes, and whether there are more.

    Older events of a session may be missing, but not its newest one. An answer may hold fewer events than asked for, to
    stay small.
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
    """Answer of `tlim.rpc.clock`: epoch milliseconds on message-store's clock, which gives the messages their times."""

    now: int

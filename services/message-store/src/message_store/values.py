"""Plain values between the rules and the tables: what a batch refers to, and what it writes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, cast

from tlim_protocol.envelope import Envelope
from tlim_protocol.events import AcceptedMessage, SessionEvent
from tlim_protocol.lenient import read_strict

from message_store.models import Audience


class ArrivedMessage(AcceptedMessage):
    """A message of TLIM_IN. Its `received_at` is by the bridge's clock, and no rule uses it."""

    arrived_at: int
    """When the broker got it, in epoch milliseconds on the store's clock, which also dates the log."""
    traceparent: str | None = None
    """The bridge's step of its trace; None without one."""

    @classmethod
    def of(cls, message: AcceptedMessage, arrived_at: int, traceparent: str | None = None) -> Self:
        """Return the message with its time and trace."""
        # dict(message) takes five times as long
        return cls(**vars(message), arrived_at=arrived_at, traceparent=traceparent)


Item = ArrivedMessage | SessionEvent
"""What a batch is made of."""


class Place(NamedTuple):
    """Where a row of the log is, and the facts about it that receipts and recalls need."""

    seq: int
    stored_at: int
    conversation_id: str
    sender: str
    msg_id: str
    msg_type: str
    is_chat: bool
    is_recalled: bool

    def may_be(self, envelope: Envelope) -> bool:
        """Tell whether a message under the same msg_id has the same type and conversation."""
        return (self.msg_type, self.conversation_id) == (envelope.msg_type, envelope.conversation_id)


class Span(NamedTuple):
    """A membership that is over: its user sees the rows between the two seqs, both included."""

    joined_seq: int
    left_seq: int


class Roster(NamedTuple):
    """A session after its newest applied event; `members` maps each member to the first seq that they see.

    It is never changed in place, because batches share it.
    """

    version: int
    is_deleted: bool
    members: Mapping[str, int]


class LogRow(NamedTuple):
    """A row of the log, in the order of the table's columns; `body` is JSON text."""

    seq: int
    conversation_id: str
    sender: str
    recipient: str | None
    audience: Audience
    msg_id: str
    msg_type: str
    is_chat: bool
    version: str
    body: str
    msg_time: str
    location: str
    stored_at: int
    sent_body: str | None = None
    """The body as it was sent (JSON text), if the row keeps less: the row of a receipt keeps only what was new."""


class ReadRow(NamedTuple):
    """A row of the log read back for a person, in the order of COLUMNS; `body` is JSON text, `[]` if it is recalled."""

    seq: int
    conversation_id: str
    sender: str
    recipient: str | None
    msg_id: str
    msg_type: str
    version: str
    body: str
    msg_time: str
    stored_at: int
    recalled_at: int | None = None

    @property
    def elements(self) -> list[dict[str, Any]]:
        """The body, parsed. Numbers are kept as they were written."""
        return cast("list[dict[str, Any]]", read_strict(self.body))


COLUMNS = ", ".join("body::text AS body" if name == "body" else name for name in ReadRow._fields)
"""What a statement selects to read such rows. Our pools would parse a body that is no text."""


class DeliveredRow(NamedTuple):
    """A row of the log read back, with all its recipients."""

    row: LogRow
    is_recalled: bool
    recipients: Sequence[str]


class AnsweredSession(NamedTuple):
    """session-api's answer about a session: its newest event, None when there is no such session."""

    event: SessionEvent | None


class Progress(NamedTuple):
    """How much of session-api's log of changes is applied: all up to `floor`, and more behind a gap, with `has_gap`.

    session-api numbers its changes without gaps. But they may be published in another order, or one not at all.
    """

    floor: int
    has_gap: bool = False


class PendingRead(NamedTuple):
    """Somebody read a message of a large group, and its author is still to be told."""

    session_id: str
    author: str
    msg_id: str
    reader: str


class FileFacts(NamedTuple):
    """file-api's answer about files: which exist, and which pairs of file and user are a file and its uploader."""

    existing: Collection[str]
    owned: Collection[tuple[str, str]]


@dataclass
class Known:
    """What the tables and the other services know about everything that a batch refers to."""

    conversations: Collection[str] = ()  # between two people, those that exist
    sessions: Collection[str] = ()  # that the batch names
    rosters: Mapping[str, Roster] = field(default_factory=dict)  # of those that exist
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict)  # by sender and msg_id
    sent: Mapping[int, str] = field(default_factory=dict)
    """By seq, the bodies as sent of messages that may be resent here; without bodies far longer than the resend."""
    senders: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # by session and msg_id
    receipts: Mapping[tuple[int, str], bool] = field(default_factory=dict)  # by seq and user: have they read it?
    earlier: Mapping[tuple[str, str], tuple[Span, ...]] = field(default_factory=dict)  # by session and user
    users: Collection[str] | None = ()  # existing users among those asked for; None: no answer
    files: FileFacts | None = None  # about the files that the batch shares; None: no answer
    shared: Mapping[tuple[str, str], Collection[int]] | None = field(default_factory=dict)
    """By file and user, some messages with the file that the user may see; None: it takes too long to look."""
    answers: Mapping[str, AnsweredSession | None] = field(default_factory=dict)  # sessions asked for; None: no answer


@dataclass
class Writes:
    """What a batch changes at the time `now` (epoch milliseconds): one field per statement."""

    now: int
    rows: list[LogRow] = field(default_factory=list)
    conversations: list[str] = field(default_factory=list)  # new ones between two people
    sessions: dict[str, SessionEvent] = field(default_factory=dict)  # newest applied event
    members: dict[tuple[str, str, int], int | None] = field(default_factory=dict)
    """Memberships by conversation, user and joined_seq, new or ended: left_seq."""
    addressees: list[tuple[str, int]] = field(default_factory=list)
    files: list[tuple[str, int]] = field(default_factory=list)
    receipts: dict[tuple[int, str], bool] = field(default_factory=dict)  # by seq and user: read?
    untold: list[tuple[int, str]] = field(default_factory=list)  # seq and reader, in large groups
    cursors: dict[tuple[str, str], int] = field(default_factory=dict)  # by user and conversation
    recalled: list[int] = field(default_factory=list)

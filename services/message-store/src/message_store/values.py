"""Plain values between the rules and the tables: what a batch refers to, and what it wants written."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from tlim_protocol.envelope import Envelope
from tlim_protocol.events import AcceptedMessage, SessionEvent

from message_store.models import Audience


class ArrivedMessage(AcceptedMessage):
    """A message of TLIM_IN. Its `received_at` is by the bridge's clock, and decides nothing."""

    arrived_at: int
    """When the broker had it, in epoch milliseconds on the store's clock, which also dates the log."""

    @classmethod
    def of(cls, message: AcceptedMessage, arrived_at: int) -> Self:
        """Return the message with its time."""
        return cls(**dict(message), arrived_at=arrived_at)


Item = ArrivedMessage | SessionEvent
"""What a batch is made of."""


class Place(NamedTuple):
    """Where a row of the log is, and what receipts and recalls have to know of it."""

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
    """A membership that is over: its holder sees what lies between, both ends included."""

    joined_seq: int
    left_seq: int


class Roster(NamedTuple):
    """A session as its newest applied event told it; `members` maps each to the seq from which he sees messages.

    Never changed in place: it is shared between batches.
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
    """What its sender sent, JSON text, where the row keeps less of it: a receipt keeps what was news."""


class DeliveredRow(NamedTuple):
    """A row of the log read back, with everybody it is for."""

    row: LogRow
    is_recalled: bool
    recipients: Sequence[str]


class AnsweredSession(NamedTuple):
    """What session-api said of a session: its newest event, None when there is no such session."""

    event: SessionEvent | None


class FileFacts(NamedTuple):
    """What file-api said of files: which exist, and the pairs of file and user whose user uploaded it."""

    existing: Collection[str]
    owned: Collection[tuple[str, str]]


@dataclass
class Known:
    """What the tables, and the other services, say of everything that a batch refers to."""

    conversations: Collection[str] = ()  # between two people, those that exist
    rosters: Mapping[str, Roster] = field(default_factory=dict)  # by session id, those that exist
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict)  # by sender and msg_id
    sent: Mapping[int, str] = field(default_factory=dict)
    """By seq, the bodies as they were sent, of messages whose msg_id comes again; without those that are far longer."""
    senders: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)  # by session and msg_id
    receipts: Mapping[tuple[int, str], bool] = field(default_factory=dict)  # by seq and user: has he read it?
    earlier: Mapping[tuple[str, str], tuple[Span, ...]] = field(default_factory=dict)  # by session and user
    users: Collection[str] | None = ()  # those of the asked who exist; None: nobody could say
    files: FileFacts | None = None  # of those that the batch shares; None: nobody could say
    shared: Mapping[tuple[str, str], Collection[int]] = field(default_factory=dict)
    """By file and user, the messages with it that he may see, a few of them."""
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
    cursors: dict[tuple[str, str], int] = field(default_factory=dict)  # by user and conversation
    recalled: list[int] = field(default_factory=list)

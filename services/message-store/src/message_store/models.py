"""The tables of message-store: the log of everything that was committed, and who may read which part of it.

Every chat message, receipt, recall and notice is a row of `messages` with its own `seq`. Seqs are drawn under a lock
that is held until the commit, so their order is the order of the commits. A reader who has seen a seq never meets a
smaller one later.
"""

from enum import IntEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    Sequence,
    SmallInteger,
    String,
    text,
)
from sqlmodel import Field, SQLModel
from tlim_runtime.tables import new_metadata

METADATA = new_metadata()

MESSAGE_SEQ = Sequence("message_seq", metadata=METADATA, data_type=BigInteger)

# All times are epoch milliseconds on the server's clock; all user ids are normalised.


class Audience(IntEnum):
    """Who gets a row of the log, besides its sender."""

    NOBODY = 0
    RECIPIENT = 1
    MEMBERS = 2
    """The members at that seq, and people listed in `addressees`: a recall is also for people who have left since.

    The sender does not get their own message. A notice has no sender, so all members get it.
    """
    ADDRESSEES = 3
    """Several members, listed in `addressees`."""


class StoreTable(SQLModel):
    """The base of this service's tables, with its own metadata, so that it never includes tables of other services."""

    metadata = METADATA


class Conversation(StoreTable, table=True):
    """Two people who have talked, or a session; a session has the values of its newest applied event."""

    __tablename__ = "conversations"

    conversation_id: str = Field(primary_key=True)
    created_at: int = Field(sa_type=BigInteger)
    last_seq: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})  # of chat; 0: none
    session_name: str | None = None
    session_type: int | None = Field(default=None, sa_type=BigInteger)
    session_version: int | None = Field(default=None, sa_type=BigInteger)  # None: two people
    deleted_at: int | None = Field(default=None, sa_type=BigInteger)


class Member(StoreTable, table=True):
    """A membership: its user sees the rows of the conversation from `joined_seq` to `left_seq`, both included.

    `left_seq` is the seq of the notice about the leaving, None while the user is a member. A user who comes back gets a
    second row. The two people of a 1:1 conversation are members from seq 0 on.
    """

    __tablename__ = "members"
    __table_args__ = (Index("ix_members_user_id", "user_id"),)

    conversation_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    joined_seq: int = Field(sa_type=BigInteger, primary_key=True)
    left_seq: int | None = Field(default=None, sa_type=BigInteger)


class Message(StoreTable, table=True):
    """One row per message, however many receivers it has; partitioned by ranges of `seq`, and so by time."""

    __tablename__ = "messages"
    __table_args__ = (
        # a page of history is one range scan, and so is the count of unread messages
        Index(
            "ix_messages_history", "conversation_id", "seq", postgresql_where=text("is_chat"),
            postgresql_include=["sender", "recalled_at"],
        ),
        # three of the ways in which a row concerns a user: a page of sync merges them
        Index("ix_messages_to_members", "conversation_id", "seq", postgresql_where=text("audience = 2")),
        Index("ix_messages_recipient", "recipient", "seq", postgresql_where=text("recipient IS NOT NULL")),
        Index("ix_messages_sender", "sender", "seq"),
        {"postgresql_partition_by": "RANGE (seq)"},
    )  # fmt: skip

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    conversation_id: str
    sender: str  # '' for notices and gathered receipts: the server itself
    recipient: str | None
    audience: int = Field(sa_type=SmallInteger)
    msg_id: str
    msg_type: str
    is_chat: bool
    version: str
    # json, not jsonb: it keeps the text as it came, with the order of keys, and takes \u0000, which jsonb refuses
    body: list[dict[str, Any]] = Field(sa_column=Column(JSON(none_as_null=True), nullable=False))
    msg_time: str
    location: str
    stored_at: int = Field(sa_type=BigInteger)
    recalled_at: int | None = Field(default=None, sa_type=BigInteger)  # then the body is []


class MessageId(StoreTable, table=True):
    """Where a message is in the log. It makes every handler idempotent: a resend finds the row that is there.

    It is a separate table, because a partitioned table can have unique keys only over its partition key.
    """

    __tablename__ = "message_ids"

    msg_id: str = Field(primary_key=True)
    sender: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    # the body as sent, if the log keeps less (of a receipt, only what was new); resends are compared with it
    sent_body: list[dict[str, Any]] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True), nullable=True)
    )


class Addressee(StoreTable, table=True):
    """One of several people who get a row: authors whose messages were received, readers of a recalled message."""

    __tablename__ = "addressees"
    __table_args__ = (Index("ix_addressees_seq", "seq"),)

    user_id: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger, primary_key=True)


class MessageFile(StoreTable, table=True):
    """Which messages carry a file: this decides who may download it.

    A recalled message keeps its rows. So we can tell a file whose messages are all recalled from a file that no stored
    message ever carried.
    """

    __tablename__ = "message_files"
    __table_args__ = (Index("ix_message_files_seq", "seq"),)

    file_id: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger, primary_key=True)


class Receipt(StoreTable, table=True):
    """A user received the message `seq`, and perhaps read it; to have read it is to have received it."""

    __tablename__ = "receipts"

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    user_id: str = Field(primary_key=True)
    delivered_at: int = Field(sa_type=BigInteger)
    read_at: int | None = Field(default=None, sa_type=BigInteger)


class UntoldRead(StoreTable, table=True):
    """A user read the message `seq` in a large group, and its author is still to be told (gathering.py)."""

    __tablename__ = "untold_reads"

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    user_id: str = Field(primary_key=True)


class ReadCursor(StoreTable, table=True):
    """The newest message of a conversation that a user reported as read: newer messages are unread."""

    __tablename__ = "read_cursors"

    user_id: str = Field(primary_key=True)
    conversation_id: str = Field(primary_key=True)
    read_seq: int = Field(sa_type=BigInteger)


class Recall(StoreTable, table=True):
    """The audit of a message that its author recalled; it has a `body` only if the operator chose to keep it."""

    __tablename__ = "recalls"
    __table_args__ = (Index("ix_recalls_recalled_at", "recalled_at"),)

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    conversation_id: str
    sender: str
    msg_id: str
    msg_type: str
    stored_at: int = Field(sa_type=BigInteger)
    recalled_at: int = Field(sa_type=BigInteger)
    body: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


class SearchDocument(StoreTable, table=True):
    """The numbers by which search finds a message: of the pairs of characters in its text, of its conversation, etc."""

    __tablename__ = "search_documents"
    __table_args__ = (Index("ix_search_documents_grams", "grams", postgresql_using="gin"),)

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    grams: list[int] = Field(sa_column=Column(ARRAY(Integer), nullable=False))


class PublicationState(StoreTable, table=True):
    """A single row: up to where the log is published and indexed, and session-api's changes are applied."""

    __tablename__ = "publication"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    published_seq: int = Field(sa_type=BigInteger)  # up to here everything is known to be in TLIM_OUT
    applied_change: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )  # session-api's: this one, and all before it
    indexed_seq: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})  # for search


class AppliedChange(StoreTable, table=True):
    """A change of session-api that is applied although one before it is missing: it is ahead of a gap.

    Rows up to `publication.applied_change` mean nothing. Only the release that knows no such table leaves them.
    """

    __tablename__ = "applied_changes"

    change: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})


class Mailbox(StoreTable, table=True):
    """How far a person's devices have taken over what was addressed to the person; see docs/decisions/mailbox.md.

    Without a row the person was never seen: their mailbox stands at `delivery.start_seq`.
    """

    __tablename__ = "mailboxes"
    __table_args__ = (
        # a bridge that starts asks who is present: that must not cost more because many people were seen once
        Index("ix_mailboxes_live", "shard", "user_id", postgresql_where=text("sessions <> '{}'")),
    )

    user_id: str = Field(primary_key=True)
    taken_seq: int = Field(sa_type=BigInteger)  # everything addressed to the person up to here was taken over
    # a device that asks sync with this cursor has everything up to it; 0: no cursor is known
    given_seq: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    # of the last note; empty: the person is away
    sessions: list[str] = Field(sa_column=Column(ARRAY(String), nullable=False, server_default="{}"))
    live_since: int | None = Field(default=None, sa_type=BigInteger)  # since then deliveries go to them directly
    shard: int | None = Field(default=None, sa_type=SmallInteger)  # None: written by the release without shards


class DeliveryShard(StoreTable, table=True):
    """What is known of the deliveries to the people of a shard (delivery_shard of the protocol library).

    `term`: rises with every bridge that takes the shard over; notes of earlier terms change nothing. `noted`: the
    number of the newest request of notes in this term. Everything up to `settled_seq` had been handed to the XMPP
    server at `settled_at`. That is so long ago that a connection which was broken then has been noticed.
    """

    __tablename__ = "delivery_shards"

    shard: int = Field(sa_type=SmallInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    term: int = Field(sa_type=BigInteger)
    noted: int = Field(sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    settled_seq: int = Field(sa_type=BigInteger)
    settled_at: int = Field(sa_type=BigInteger)


class DeliveryState(StoreTable, table=True):
    """A single row: where mailboxes begin. Its other numbers are for the release without shards."""

    __tablename__ = "delivery"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    start_seq: int = Field(sa_type=BigInteger)  # older messages wait in the XMPP server's own offline storage
    settled_seq: int = Field(sa_type=BigInteger)
    settled_at: int = Field(sa_type=BigInteger)

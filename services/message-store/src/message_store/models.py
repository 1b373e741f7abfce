"""The tables of message-store: the log of everything that was committed, and who may read which part of it.

Every chat message, receipt, recall and notice is a row of `messages` with a `seq` of its own. Seqs are given out under
a lock that is held until the commit: their order is the order of the commits, so that a reader who has seen one never
meets a smaller one later.
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
    text,
)
from sqlmodel import Field, SQLModel
from tlim_runtime.tables import new_metadata

METADATA = new_metadata()

MESSAGE_SEQ = Sequence("message_seq", metadata=METADATA, data_type=BigInteger)

# All times are epoch milliseconds on the server's clock; all user ids are normalised.


class Audience(IntEnum):
    """Who else than its sender a row of the log is for."""

    NOBODY = 0
    RECIPIENT = 1
    MEMBERS = 2
    """The members at that seq, and those listed in `addressees`: a recall is also for people who have left since.

    The sender is not sent their own, except a notice, which has no sender.
    """
    ADDRESSEES = 3
    """Several members, listed in `addressees`."""


class Table(SQLModel):
    """The base of this service's tables; its own metadata, so that no other service's tables mix in."""

    metadata = METADATA


class Conversation(Table, table=True):
    """Two people who have talked, or a session; the latter as its newest applied event told it."""

    __tablename__ = "conversations"

    conversation_id: str = Field(primary_key=True)
    created_at: int = Field(sa_type=BigInteger)
    last_seq: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})  # of chat; 0: none
    session_name: str | None = None
    session_type: int | None = Field(default=None, sa_type=BigInteger)
    session_version: int | None = Field(default=None, sa_type=BigInteger)  # None: two people
    deleted_at: int | None = Field(default=None, sa_type=BigInteger)


class Member(Table, table=True):
    """Somebody sees of a conversation what has a seq from `joined_seq` to `left_seq`, both included.

    `left_seq` is the seq of the notice that tells of his leaving, None while he is in. Who comes back gets a second
    row. The two people of a 1:1 conversation are in it from 0 on.
    """

    __tablename__ = "members"
    __table_args__ = (Index("ix_members_user_id", "user_id"),)

    conversation_id: str = Field(primary_key=True)
    user_id: str = Field(primary_key=True)
    joined_seq: int = Field(sa_type=BigInteger, primary_key=True)
    left_seq: int | None = Field(default=None, sa_type=BigInteger)


class Message(Table, table=True):
    """One row per message, whatever the number of its receivers; partitioned by ranges of `seq`, thus by time."""

    __tablename__ = "messages"
    __table_args__ = (
        # a page of history, or the count of what is unread, is one range scan
        Index(
            "ix_messages_history", "conversation_id", "seq", postgresql_where=text("is_chat"),
            postgresql_include=["sender", "recalled_at"],
        ),
        # the three ways in which a row concerns somebody: a page of sync merges them
        Index("ix_messages_to_members", "conversation_id", "seq", postgresql_where=text("audience = 2")),
        Index("ix_messages_recipient", "recipient", "seq", postgresql_where=text("recipient IS NOT NULL")),
        Index("ix_messages_sender", "sender", "seq"),
        {"postgresql_partition_by": "RANGE (seq)"},
    )  # fmt: skip

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    conversation_id: str
    sender: str  # '' for notices: the server itself
    recipient: str | None
    audience: int = Field(sa_type=SmallInteger)
    msg_id: str
    msg_type: str
    is_chat: bool
    version: str
    # json, not jsonb: the text is kept as it came, with \u0000, which jsonb refuses, and with the order of keys
    body: list[dict[str, Any]] = Field(sa_column=Column(JSON(none_as_null=True), nullable=False))
    msg_time: str
    location: str
    stored_at: int = Field(sa_type=BigInteger)
    recalled_at: int | None = Field(default=None, sa_type=BigInteger)  # then the body is []


class MessageId(Table, table=True):
    """Where a message is in the log; makes every handler idempotent: a resend is the same row.

    A table of its own, because a partitioned one can only be unique in what it is partitioned by.
    """

    __tablename__ = "message_ids"

    msg_id: str = Field(primary_key=True)
    sender: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    # what was sent under it, where the log keeps less: of a receipt only the news. Resends are compared with it.
    sent_body: list[dict[str, Any]] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True), nullable=True)
    )


class Addressee(Table, table=True):
    """One of several people for whom a row is: authors whom a received receipt names, readers of a recalled message."""

    __tablename__ = "addressees"
    __table_args__ = (Index("ix_addressees_seq", "seq"),)

    user_id: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger, primary_key=True)


class MessageFile(Table, table=True):
    """Which messages carry a file: answers who may download it.

    A recalled message keeps its rows: they tell the file's uploader from somebody whose message was never stored.
    """

    __tablename__ = "message_files"
    __table_args__ = (Index("ix_message_files_seq", "seq"),)

    file_id: str = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger, primary_key=True)


class Receipt(Table, table=True):
    """Somebody received, and perhaps read, the message `seq`; who has read it has received it."""

    __tablename__ = "receipts"

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    user_id: str = Field(primary_key=True)
    delivered_at: int = Field(sa_type=BigInteger)
    read_at: int | None = Field(default=None, sa_type=BigInteger)


class ReadCursor(Table, table=True):
    """The newest message of a conversation that somebody reported as read: what is behind it is unread."""

    __tablename__ = "read_cursors"

    user_id: str = Field(primary_key=True)
    conversation_id: str = Field(primary_key=True)
    read_seq: int = Field(sa_type=BigInteger)


class Recall(Table, table=True):
    """The audit of a recalled message: its author recalled it; `body` only where the operator keeps it."""

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


class SearchDocument(Table, table=True):
    """What a message can be found by: hashes of the pairs of characters in its text, and of its conversation."""

    __tablename__ = "search_documents"
    __table_args__ = (Index("ix_search_documents_grams", "grams", postgresql_using="gin"),)

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    grams: list[int] = Field(sa_column=Column(ARRAY(Integer), nullable=False))


class PublicationState(Table, table=True):
    """The one row that says how far the leader has come with what it does behind the log."""

    __tablename__ = "publication"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    published_seq: int = Field(sa_type=BigInteger)  # up to here everything is known to be in TLIM_OUT
    applied_change: int = Field(
        default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"}
    )  # session-api's
    indexed_seq: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})  # for search

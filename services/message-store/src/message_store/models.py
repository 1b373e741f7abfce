"""The tables of message-store: the record of every message."""

from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, ForeignKey, Identity, Index, UniqueConstraint
from sqlmodel import Field, SQLModel
from tlim_runtime.tables import new_metadata


class Table(SQLModel):
    """The base of this service's tables; its own metadata, so that no other service's tables mix in."""

    metadata = new_metadata()


class Conversation(Table, table=True):
    """A conversation that holds at least one message; made once its members are known to exist."""

    __tablename__ = "conversations"

    conversation_id: str = Field(primary_key=True)
    created_at: int = Field(sa_type=BigInteger)  # epoch milliseconds, like all times here


class Message(Table, table=True):
    """One row per message, whatever the number of its receivers."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("sender", "msg_id"),  # makes every handler idempotent: a resend is the same row
        Index("ix_messages_conversation_id_seq", "conversation_id", "seq"),  # a page of history is one range scan
    )

    seq: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    conversation_id: str
    sender: str
    recipient: str | None
    msg_id: str
    msg_type: str
    version: str
    # json, not jsonb: the text is kept as it came, with \u0000, which jsonb refuses, and with the order of keys
    body: list[dict[str, Any]] = Field(sa_column=Column(JSON(none_as_null=True), nullable=False))
    msg_time: str
    location: str
    stored_at: int = Field(sa_type=BigInteger)


class MessageFile(Table, table=True):
    """Which messages share a file: answers who may download it."""

    __tablename__ = "message_files"

    file_id: str = Field(primary_key=True)
    seq: int = Field(sa_column=Column(BigInteger, ForeignKey("messages.seq"), primary_key=True))


class PublicationState(Table, table=True):
    """The one row that says up to which seq everything is known to be in TLIM_OUT."""

    __tablename__ = "publication"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    published_seq: int = Field(sa_type=BigInteger)

"""The tables: files, who may read them besides their owners, and the outbox."""

from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from tlim_runtime.outbox import Outbox
from tlim_runtime.tables import new_metadata

METADATA = new_metadata()
OUTBOX = Outbox(METADATA)

_ID = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)


class FileState(StrEnum):
    """How far an upload is. PENDING: bytes may or may not be in S3; STORED: they are, complete."""

    PENDING = "pending"
    STORED = "stored"


class Table(SQLModel, registry=registry(metadata=METADATA)):
    """The base of this service's tables; metadata of their own, because the tests of all services share a process."""


class FileRow(Table, table=True):
    """A file. What is known only after its last byte is null until then."""

    __tablename__ = "files"
    __table_args__ = (
        sa.CheckConstraint("state IN ('pending', 'stored')", name="state"),
        sa.CheckConstraint(
            "state = 'pending' OR (size > 0 AND sha256 IS NOT NULL AND media_type IS NOT NULL"
            " AND name IS NOT NULL AND stored_at IS NOT NULL)",
            name="complete",
        ),
        # What the sweeper looks for: few rows at any time, however many files there are.
        sa.Index("ix_files_pending", "created_at", postgresql_where=sa.text("state = 'pending'")),
    )

    file_id: str = Field(primary_key=True, sa_type=_ID)
    owner_id: str = Field(sa_type=_ID)
    state: str = Field(default=FileState.PENDING.value, sa_type=sa.Text)
    created_at: datetime = Field(sa_type=_TIME)
    name: str | None = Field(default=None, sa_type=sa.Text)
    media_type: str | None = Field(default=None, sa_type=sa.Text)
    size: int | None = Field(default=None, sa_type=sa.BigInteger)
    sha256: str | None = Field(default=None, sa_type=sa.Text)
    stored_at: datetime | None = Field(default=None, sa_type=_TIME)


class Grant(Table, table=True):
    """Somebody may read a file: it was sent to him by a person who could read it."""

    __tablename__ = "grants"

    file_id: str = Field(primary_key=True, sa_type=_ID, foreign_key="files.file_id", ondelete="CASCADE")
    user_id: str = Field(primary_key=True, sa_type=_ID)

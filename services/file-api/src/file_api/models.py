"""The tables. Every object in S3 has a row in exactly one of `uploads`, `blobs` and `discarded`."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from tlim_runtime.outbox import Outbox
from tlim_runtime.tables import new_metadata

METADATA = new_metadata()
OUTBOX = Outbox(METADATA)

_ID = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)


class FileTable(SQLModel, registry=registry(metadata=METADATA)):
    """The base of this service's tables; metadata of their own, because the tests of all services share a process."""


class UploadRow(FileTable, table=True):
    """An upload that has begun: there may be bytes or parts under the object key that belongs to `upload_id`.

    The row is committed before the first byte goes to S3. When the upload ends, one transaction turns the row into a
    row of `blobs` or of `discarded`. After `expires_at` the upload belongs to nobody. `upload_id` becomes the id of the
    file, and also the id of the blob when the bytes are new.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        sa.CheckConstraint("kind IN ('stream', 'direct')", name="kind"),
        sa.Index("ix_uploads_expires_at", "expires_at"),
        sa.Index("ix_uploads_owner_id", "owner_id"),
    )

    upload_id: str = Field(primary_key=True, sa_type=_ID)
    owner_id: str = Field(sa_type=_ID)
    kind: str = Field(default="stream", sa_type=sa.Text)
    began_at: datetime = Field(sa_type=_TIME)
    expires_at: datetime = Field(sa_type=_TIME)
    reserved_bytes: int = Field(default=0, sa_type=sa.BigInteger)  # of the owner's quota; direct: the declared size
    name: str | None = Field(default=None, sa_type=sa.Text)
    media_type: str | None = Field(default=None, sa_type=sa.Text)
    s3_upload_id: str | None = Field(default=None, sa_type=sa.Text)  # of a multipart upload
    part_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    sha256: str | None = Field(default=None, sa_type=sa.Text)  # as declared


class BlobRow(FileTable, table=True):
    """Bytes that are complete in S3, kept once for all files that have them. The row goes with the last such file.

    `scan_due_at` and `facts_due_at` say when a background task looks at the blob (again); null: nothing to do. Only an
    infected blob has no object any more. Its row stays, so that the same bytes are refused. `worker_losses`: how many
    workers in a row did not come back from it; a loss before `losses_count_from` is not counted.
    """

    __tablename__ = "blobs"
    __table_args__ = (
        sa.CheckConstraint("size > 0", name="size"),
        sa.CheckConstraint("scan IN ('skipped', 'waiting', 'clean', 'infected')", name="scan"),
        sa.CheckConstraint("(scan = 'waiting') = (scan_due_at IS NOT NULL)", name="scan_due"),
        sa.Index("ix_blobs_scan_due_at", "scan_due_at", postgresql_where=sa.text("scan_due_at IS NOT NULL")),
        sa.Index("ix_blobs_facts_due_at", "facts_due_at", postgresql_where=sa.text("facts_due_at IS NOT NULL")),
        sa.Index("ix_blobs_infected", "blob_id", postgresql_where=sa.text("scan = 'infected'")),
    )

    blob_id: str = Field(primary_key=True, sa_type=_ID)
    sha256: str = Field(sa_type=_ID, unique=True)
    size: int = Field(sa_type=sa.BigInteger)
    stored_at: datetime = Field(sa_type=_TIME)
    scan: str = Field(sa_type=sa.Text)
    scan_due_at: datetime | None = Field(default=None, sa_type=_TIME)
    finding: str | None = Field(default=None, sa_type=sa.Text)  # the name of the virus
    facts_due_at: datetime | None = Field(default=None, sa_type=_TIME)
    width: int | None = Field(default=None, sa_type=sa.Integer)
    height: int | None = Field(default=None, sa_type=sa.Integer)
    duration_ms: int | None = Field(default=None, sa_type=sa.BigInteger)
    thumbnail_type: str | None = Field(default=None, sa_type=sa.Text)  # null: there is no thumbnail of any size
    thumbnail_failed: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})  # nobody tries again
    worker_losses: int = Field(default=0, sa_type=sa.SmallInteger, sa_column_kwargs={"server_default": "0"})
    losses_count_from: datetime | None = Field(default=None, sa_type=_TIME)


class FileRow(FileTable, table=True):
    """A file: what somebody uploaded under a name. Its size is repeated here, because quotas add it up by owner."""

    __tablename__ = "files"
    __table_args__ = (
        sa.Index("ix_files_blob_id", "blob_id"),
        sa.Index("ix_files_owner_id", "owner_id", postgresql_include=["size", "blob_id"]),
        sa.Index("ix_files_unsent", "stored_at", postgresql_where=sa.text("sent_at IS NULL")),
    )

    file_id: str = Field(primary_key=True, sa_type=_ID)
    owner_id: str = Field(sa_type=_ID)
    blob_id: str = Field(sa_type=_ID, foreign_key="blobs.blob_id")
    name: str = Field(sa_type=sa.Text)
    media_type: str = Field(sa_type=sa.Text)
    size: int = Field(sa_type=sa.BigInteger)
    stored_at: datetime = Field(sa_type=_TIME)
    sent_at: datetime | None = Field(default=None, sa_type=_TIME)  # when message-store first asked for it


class RemovedFileRow(FileTable, table=True):
    """A file that was sent and then removed on purpose: a message may still carry its id.

    Without the row nobody could tell such a file from a lost one. A file that was never sent leaves none. Retention
    removes the row when no message that is kept carries the file.
    """

    __tablename__ = "removed_files"

    file_id: str = Field(primary_key=True, sa_type=_ID)
    removed_at: datetime = Field(sa_type=_TIME)


class DiscardedRow(FileTable, table=True):
    """An object that belongs to nobody and is to be removed from S3, at `not_before` or later.

    `not_before` lies in the future for keys that S3 may still write, and for keys that a process is removing.
    """

    __tablename__ = "discarded"
    __table_args__ = (sa.Index("ix_discarded_not_before", "not_before"),)

    object_key: str = Field(primary_key=True, sa_type=_ID)
    not_before: datetime = Field(sa_type=_TIME)

"""The same bytes are kept once: files point at blobs; uploads and discarded objects have rows of their own."""

import sqlalchemy as sa
from alembic import op

revision = "20261124_blobs"
down_revision = "20261123_files"
branch_labels = None
depends_on = None

_ID = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_tables()
    op.add_column("files", sa.Column("blob_id", _ID, nullable=True))
    op.add_column("files", sa.Column("sent_at", _TIME, nullable=True))
    _move_rows()
    _change_files()
    _create_indexes()


def _create_tables() -> None:
    op.create_table(
        "blobs",
        sa.Column("blob_id", _ID, nullable=False),
        sa.Column("sha256", _ID, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("stored_at", _TIME, nullable=False),
        sa.Column("scan", sa.Text(), nullable=False),
        sa.Column("scan_due_at", _TIME, nullable=True),
        sa.Column("finding", sa.Text(), nullable=True),
        sa.Column("facts_due_at", _TIME, nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("thumbnail_key", sa.Text(), nullable=True),
        sa.CheckConstraint("size > 0", name=op.f("ck_blobs_size")),
        sa.CheckConstraint("scan IN ('skipped', 'waiting', 'clean', 'infected')", name=op.f("ck_blobs_scan")),
        sa.CheckConstraint("(scan = 'waiting') = (scan_due_at IS NOT NULL)", name=op.f("ck_blobs_scan_due")),
        sa.PrimaryKeyConstraint("blob_id", name=op.f("pk_blobs")),
        sa.UniqueConstraint("sha256", name=op.f("uq_blobs_sha256")),
    )
    op.create_table(
        "uploads",
        sa.Column("upload_id", _ID, nullable=False),
        sa.Column("owner_id", _ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("began_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("reserved_bytes", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("s3_upload_id", sa.Text(), nullable=True),
        sa.Column("part_bytes", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('stream', 'direct')", name=op.f("ck_uploads_kind")),
        sa.CheckConstraint("state IN ('open', 'completing')", name=op.f("ck_uploads_state")),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_uploads")),
    )
    op.create_table(
        "discarded",
        sa.Column("object_key", _ID, nullable=False),
        sa.Column("not_before", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("object_key", name=op.f("pk_discarded")),
    )


def _change_files() -> None:
    op.drop_index("ix_files_pending", "files")
    op.drop_constraint(op.f("ck_files_complete"), "files")
    op.drop_constraint(op.f("ck_files_state"), "files")
    for column in ("state", "created_at", "sha256"):
        op.drop_column("files", column)
    for column in ("blob_id", "name", "media_type", "size", "stored_at"):
        op.alter_column("files", column, nullable=False)
    op.create_foreign_key(op.f("fk_files_blob_id_blobs"), "files", "blobs", ["blob_id"], ["blob_id"])


def _create_indexes() -> None:
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_index("ix_uploads_owner_id", "uploads", ["owner_id"])
    op.create_index("ix_discarded_not_before", "discarded", ["not_before"])
    op.create_index("ix_files_blob_id", "files", ["blob_id"])
    op.create_index("ix_files_owner_id", "files", ["owner_id"], postgresql_include=["size", "blob_id"])
    op.create_index("ix_files_unsent", "files", ["stored_at"], postgresql_where=sa.text("sent_at IS NULL"))
    op.create_index(
        "ix_blobs_scan_due_at", "blobs", ["scan_due_at"], postgresql_where=sa.text("scan_due_at IS NOT NULL")
    )
    op.create_index(
        "ix_blobs_facts_due_at", "blobs", ["facts_due_at"], postgresql_where=sa.text("facts_due_at IS NOT NULL")
    )
    op.create_index("ix_blobs_infected", "blobs", ["blob_id"], postgresql_where=sa.text("scan = 'infected'"))


def _move_rows() -> None:
    # Of files with the same bytes one keeps its object, as the blob of all; nobody's file is taken for never sent.
    op.execute(
        "INSERT INTO blobs (blob_id, sha256, size, stored_at, scan, facts_due_at)"
        " SELECT DISTINCT ON (sha256) file_id, sha256, size, stored_at, 'skipped', now() FROM files"
        " WHERE state = 'stored' ORDER BY sha256, stored_at, file_id"
    )
    op.execute(
        "UPDATE files SET blob_id = blobs.blob_id, sent_at = files.stored_at FROM blobs"
        " WHERE files.state = 'stored' AND blobs.sha256 = files.sha256"
    )
    op.execute(
        "INSERT INTO discarded (object_key, not_before)"
        " SELECT 'files/' || substr(file_id, 1, 2) || '/' || file_id, now() FROM files"
        " WHERE state = 'stored' AND blob_id <> file_id"
    )
    op.execute(
        "INSERT INTO uploads (upload_id, owner_id, kind, state, began_at, expires_at, reserved_bytes)"
        " SELECT file_id, owner_id, 'stream', 'open', created_at, created_at + interval '12 hours', 0 FROM files"
        " WHERE state = 'pending'"
    )
    op.execute("DELETE FROM files WHERE state = 'pending'")


def downgrade() -> None:
    raise NotImplementedError("objects of files with the same bytes are gone: restore a backup")

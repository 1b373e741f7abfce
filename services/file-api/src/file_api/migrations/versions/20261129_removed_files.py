"""A file that was removed on purpose could not be told from a lost one while a message still carried it."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_removed_files"
down_revision = "20261129_outbox_traceparent"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; the previous release does not know it, and removes files without a note."""
    op.create_table(
        "removed_files",
        sa.Column("file_id", sa.Text(collation="C"), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("file_id", name=op.f("pk_removed_files")),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("removed_files")

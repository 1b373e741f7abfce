"""A worker that was lost for whatever reason was taken for the file's fault for ever: now such losses are counted."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_worker_losses"
down_revision = "20261129_removed_files"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("worker_losses", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("blobs", sa.Column("losses_count_from", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("blobs", "losses_count_from")
    op.drop_column("blobs", "worker_losses")

"""Direct uploads declare a digest; thumbnails come in several sizes, under keys made from the blob's id."""

import sqlalchemy as sa
from alembic import op

revision = "20261124_direct"
down_revision = "20261124_no_grants"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("sha256", sa.Text(), nullable=True))
    op.add_column("blobs", sa.Column("thumbnail_type", sa.Text(), nullable=True))
    op.drop_column("blobs", "thumbnail_key")


def downgrade() -> None:
    op.add_column("blobs", sa.Column("thumbnail_key", sa.Text(), nullable=True))
    op.drop_column("blobs", "thumbnail_type")
    op.drop_column("uploads", "sha256")

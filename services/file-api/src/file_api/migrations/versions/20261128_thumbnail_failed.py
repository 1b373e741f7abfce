"""That a picture has no thumbnail is remembered by itself: it was remembered by forgetting the picture's size."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_thumbnail_failed"
down_revision = "20261128_outbox_refused"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("thumbnail_failed", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("blobs", "thumbnail_failed")

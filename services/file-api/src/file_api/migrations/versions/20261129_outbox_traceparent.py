"""An event in the outbox belongs to the trace of the request that caused it."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_outbox_traceparent"
down_revision = "20261128_thumbnail_failed"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the previous release leaves it empty."""
    op.add_column("outbox", sa.Column("traceparent", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("outbox", "traceparent")

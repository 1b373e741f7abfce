"""Requests of notes about mailboxes are numbered: one that is taken after a newer one changes nothing."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_noted"
down_revision = "20261128_delivery_shards"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("delivery_shards", sa.Column("noted", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("delivery_shards", "noted")

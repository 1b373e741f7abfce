"""Which changes of sessions are applied ahead of a gap: before, each store knew only what it had applied itself."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_applied_changes"
down_revision = "20261129_given"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "applied_changes",
        sa.Column("change", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("change", name=op.f("pk_applied_changes")),
    )


def downgrade() -> None:
    op.drop_table("applied_changes")

"""Who has read a message of a large group, until its author is told."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_untold_reads"
down_revision = "20261128_sent_body"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "untold_reads",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seq", "user_id", name=op.f("pk_untold_reads")),
    )


def downgrade() -> None:
    op.drop_table("untold_reads")

"""A mailbox knows the cursor that a sync has given, so that no other cursor moves it."""

import sqlalchemy as sa
from alembic import op

revision = "20261129_given"
down_revision = "20261129_noted"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mailboxes", sa.Column("given_seq", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("mailboxes", "given_seq")

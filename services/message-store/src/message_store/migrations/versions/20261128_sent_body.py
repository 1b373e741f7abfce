"""What was sent under a msg_id, where the log keeps less of it: what comes under it again is compared with that."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_sent_body"
down_revision = "20261124_upkeep"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("message_ids", sa.Column("sent_body", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("message_ids", "sent_body")

"""Events that NATS will never take stay in the outbox with the reason."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_outbox_refused"
down_revision = "20261124_no_upload_state"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the reason."""
    op.add_column("outbox", sa.Column("refused", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it; the events are gone, because the previous release would try them for ever."""
    op.execute("DELETE FROM outbox WHERE refused IS NOT NULL")
    op.drop_column("outbox", "refused")

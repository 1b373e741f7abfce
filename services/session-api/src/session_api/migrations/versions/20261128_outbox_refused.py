"""Events that NATS will never take stay in the outbox with the reason."""

import sqlalchemy as sa
from alembic import op

revision: str = "20261128_outbox_refused"
down_revision: str | None = "20261124_audit"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the reason."""
    op.add_column("outbox", sa.Column("refused", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it; the events are gone, because the previous release would try them for ever."""
    op.execute("DELETE FROM outbox WHERE refused IS NOT NULL")
    op.drop_column("outbox", "refused")

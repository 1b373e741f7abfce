"""An index for reading the subscribers of a large group page by page, in the order they came."""

from alembic import op

revision: str = "20261124_subscribers_in_order"
down_revision: str | None = "20261124_session_changes"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the index."""
    op.create_index("ix_subscribers_in_order", "subscribers", ["session_id", "added_version", "position"])


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_subscribers_in_order", table_name="subscribers")

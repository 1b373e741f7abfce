"""An upload is open as long as it has a row: its state is not written down."""

import sqlalchemy as sa
from alembic import op

revision = "20261124_no_upload_state"
down_revision = "20261124_direct"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("uploads", "state")


def downgrade() -> None:
    op.add_column("uploads", sa.Column("state", sa.Text(), nullable=False, server_default="open"))
    op.alter_column("uploads", "state", server_default=None)
    op.create_check_constraint(op.f("ck_uploads_state"), "uploads", "state IN ('open', 'completing')")

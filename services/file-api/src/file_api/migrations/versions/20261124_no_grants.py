"""Who may read a file is asked of message-store at each download; no grants are kept."""

import sqlalchemy as sa
from alembic import op

revision = "20261124_no_grants"
down_revision = "20261124_blobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("grants")


def downgrade() -> None:
    op.create_table(
        "grants",
        sa.Column("file_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.ForeignKeyConstraint(
            ["file_id"], ["files.file_id"], name=op.f("fk_grants_file_id_files"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("file_id", "user_id", name=op.f("pk_grants")),
    )

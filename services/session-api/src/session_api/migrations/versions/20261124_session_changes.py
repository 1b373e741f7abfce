"""The log of changes; what exists already enters it with its newest version, in the order of its time."""

import sqlalchemy as sa
from alembic import op

revision: str = "20261124_session_changes"
down_revision: str | None = "20261123_users_sessions_outbox"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the log and number the sessions there are."""
    op.create_table(
        "session_changes",
        sa.Column("change", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("session_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("session_name", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(collation="C"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_session_changes_session_id_sessions")
        ),
        sa.PrimaryKeyConstraint("change", name=op.f("pk_session_changes")),
        sa.UniqueConstraint("session_id", "version", name=op.f("uq_session_changes_session_id_version")),
    )
    op.execute(
        """
        INSERT INTO session_changes (change, session_id, version, session_name, actor, at, deleted)
        SELECT row_number() OVER (ORDER BY at, session_id), session_id, version, session_name, changed_by, at, deleted
        FROM (SELECT *, coalesce(deleted_at, modified_at, created_at) AS at, deleted_at IS NOT NULL AS deleted
              FROM sessions) AS told
        """
    )


def downgrade() -> None:
    """Drop the log."""
    op.drop_table("session_changes")

"""Users, sessions with their subscribers, and the outbox."""

import sqlalchemy as sa
from alembic import op

revision: str = "20261123_users_sessions_outbox"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "users",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_users")),
    )
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.Text(collation="C"), nullable=False),
        sa.Column("session_name", sa.Text(), nullable=False),
        sa.Column("session_type", sa.BigInteger(), nullable=False),
        sa.Column("creator", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("changed_by", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "session_valid",
            sa.SmallInteger(),
            sa.Computed("CASE WHEN deleted_at IS NULL THEN 0 ELSE 1 END", persisted=True),
            nullable=True,
        ),
        sa.ForeignKeyConstraint(["creator"], ["users.user_id"], name=op.f("fk_sessions_creator_users")),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_sessions")),
    )
    op.create_table(
        "subscribers",
        sa.Column("session_id", sa.Text(collation="C"), nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("added_version", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_version", sa.Integer(), nullable=True),
        sa.Column("left_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.session_id"], name=op.f("fk_subscribers_session_id_sessions")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], name=op.f("fk_subscribers_user_id_users")),
        sa.PrimaryKeyConstraint("session_id", "user_id", "added_version", name=op.f("pk_subscribers")),
    )
    op.create_index(
        "uq_subscribers_open",
        "subscribers",
        ["user_id", "session_id"],
        unique=True,
        postgresql_where=sa.text("left_at IS NULL"),
    )


def downgrade() -> None:
    """Drop all tables."""
    op.drop_index("uq_subscribers_open", table_name="subscribers", postgresql_where=sa.text("left_at IS NULL"))
    op.drop_table("subscribers")
    op.drop_table("sessions")
    op.drop_table("users")
    op.drop_table("outbox")

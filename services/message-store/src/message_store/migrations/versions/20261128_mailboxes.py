"""How far each person's devices have taken over what was addressed to the person."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_mailboxes"
down_revision = "20261128_untold_reads"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailboxes",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("taken_seq", sa.BigInteger(), nullable=False),
        sa.Column("sessions", sa.ARRAY(sa.String()), server_default="{}", nullable=False),
        sa.Column("live_since", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_mailboxes")),
    )
    op.create_index("ix_mailboxes_live", "mailboxes", ["user_id"], postgresql_where=sa.text("sessions <> '{}'"))
    # taken_seq moves with every sync of a device: room in the page lets it change in place
    op.execute("ALTER TABLE mailboxes SET (fillfactor = 70)")
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_seq", sa.BigInteger(), nullable=False),
        sa.Column("settled_seq", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_delivery_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
    )
    # What is older waits in the XMPP server's offline storage for people who are away. What was stored in the last 10
    # minutes may still be in TLIM_OUT: the next bridge does not deliver it to people who are away, so it has to be in
    # their mailboxes. Some get it twice.
    op.execute("""
        INSERT INTO delivery (id, start_seq, settled_seq, settled_at)
        SELECT 1, coalesce((
            SELECT seq FROM messages
            WHERE stored_at < (SELECT stored_at FROM messages ORDER BY seq DESC LIMIT 1) - 600000
            ORDER BY seq DESC LIMIT 1), 0), 0, 0""")


def downgrade() -> None:
    op.drop_table("delivery")
    op.drop_table("mailboxes")

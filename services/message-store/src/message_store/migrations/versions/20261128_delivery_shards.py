"""Deliveries have shards: each has its own term, and its own seq up to which the XMPP server has everything."""

import sqlalchemy as sa
from alembic import op
from tlim_protocol.identity import DELIVERY_SHARDS, delivery_shard

revision = "20261128_delivery_shards"
down_revision = "20261128_mailboxes"
branch_labels = None
depends_on = None

_AT_ONCE = 10_000


def upgrade() -> None:
    op.create_table(
        "delivery_shards",
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("settled_seq", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_delivery_shards")),
    )
    op.execute(f"""
        INSERT INTO delivery_shards (shard, term, settled_seq, settled_at)
        SELECT shard, 0, settled_seq, settled_at FROM delivery, generate_series(0, {DELIVERY_SHARDS - 1}) AS shard""")
    # The previous release writes rows without a shard until it is replaced. They count as people who have gone.
    op.add_column("mailboxes", sa.Column("shard", sa.SmallInteger(), nullable=True))
    # What waits in TLIM_OUT when the new consumers are made has other subjects, and is removed there. So everybody
    # counts as gone, and catches up. Their devices confirmed nothing that we know of.
    op.execute("""
        UPDATE mailboxes SET sessions = '{}', live_since = NULL, taken_seq = CASE
            WHEN live_since <= settled_at THEN
                greatest(taken_seq, least(settled_seq, (SELECT coalesce(max(seq), 0) FROM messages)))
            ELSE taken_seq END
        FROM delivery WHERE sessions <> '{}'""")
    _fill_in()
    op.drop_index("ix_mailboxes_live", "mailboxes")
    op.create_index("ix_mailboxes_live", "mailboxes", ["shard", "user_id"], postgresql_where=sa.text("sessions <> '{}'"))


def _fill_in() -> None:
    """Write the shard of each person. PostgreSQL has no crc32."""
    connection, after = op.get_bind(), ""
    page = sa.text("SELECT user_id FROM mailboxes WHERE user_id > :after ORDER BY user_id LIMIT :limit")
    write = sa.text("""
        UPDATE mailboxes SET shard = known.shard
        FROM unnest(CAST(:user_ids AS text[]), CAST(:shards AS smallint[])) AS known (user_id, shard)
        WHERE mailboxes.user_id = known.user_id""")
    while user_ids := list(connection.scalars(page, {"after": after, "limit": _AT_ONCE})):
        connection.execute(write, {"user_ids": user_ids, "shards": [delivery_shard(one) for one in user_ids]})
        after = user_ids[-1]


def downgrade() -> None:
    op.drop_index("ix_mailboxes_live", "mailboxes")
    op.create_index("ix_mailboxes_live", "mailboxes", ["user_id"], postgresql_where=sa.text("sessions <> '{}'"))
    op.drop_column("mailboxes", "shard")
    op.drop_table("delivery_shards")

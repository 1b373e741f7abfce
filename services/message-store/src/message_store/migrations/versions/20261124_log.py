"""The log: one seq for everything that is committed, in partitions; members, receipts, recalls, search."""

import sqlalchemy as sa
from alembic import op

revision = "20261124_log"
down_revision = "20261123_messages"
branch_labels = None
depends_on = None

# Owned by the role that owns the tables and run with its rights: the service itself may only change rows.
_ADD_PARTITIONS = """
CREATE FUNCTION add_message_partitions(span bigint, up_to bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE bound bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(7240002);
    SELECT coalesce(max((regexp_match(pg_get_expr(relpartbound, oid), 'TO \\(''?(\\d+)'))[1]::bigint), 1) INTO bound
    FROM pg_class WHERE relispartition AND relkind = 'r'
        AND oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'messages'::regclass);
    WHILE bound <= up_to LOOP
        EXECUTE format('CREATE TABLE messages_p%s PARTITION OF messages FOR VALUES FROM (%s) TO (%s)',
                       bound, bound, bound + span);
        bound := bound + span;
    END LOOP;
    RETURN bound;
END $$"""

_SPAN = 10_000_000


def upgrade() -> None:
    _create_log()
    _create_people()
    _create_around()
    _copy()
    op.drop_table("old_messages")


def _create_log() -> None:
    op.execute("ALTER TABLE message_files DROP CONSTRAINT fk_message_files_seq_messages")
    op.execute("ALTER TABLE messages RENAME TO old_messages")
    op.execute("ALTER TABLE old_messages RENAME CONSTRAINT pk_messages TO pk_old_messages")
    op.execute("DROP INDEX ix_messages_conversation_id_seq")
    op.execute("CREATE SEQUENCE message_seq AS bigint")
    op.create_table(
        "messages",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("recipient", sa.String(), nullable=True),
        sa.Column("audience", sa.SmallInteger(), nullable=False),
        sa.Column("msg_id", sa.String(), nullable=False),
        sa.Column("msg_type", sa.String(), nullable=False),
        sa.Column("is_chat", sa.Boolean(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("msg_time", sa.String(), nullable=False),
        sa.Column("location", sa.String(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.Column("recalled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name="pk_messages"),
        postgresql_partition_by="RANGE (seq)",
    )
    op.create_index(
        "ix_messages_history", "messages", ["conversation_id", "seq"], postgresql_where=sa.text("is_chat"),
        postgresql_include=["sender", "recalled_at"],
    )  # fmt: skip
    op.create_index(
        "ix_messages_to_members", "messages", ["conversation_id", "seq"], postgresql_where=sa.text("audience = 2")
    )
    op.create_index(
        "ix_messages_recipient", "messages", ["recipient", "seq"], postgresql_where=sa.text("recipient IS NOT NULL")
    )
    op.create_index("ix_messages_sender", "messages", ["sender", "seq"])
    op.execute(_ADD_PARTITIONS)
    op.create_table(
        "message_ids",
        sa.Column("msg_id", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("msg_id", "sender", name="pk_message_ids"),
    )
    op.create_table(
        "addressees",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "seq", name="pk_addressees"),
    )
    op.create_index("ix_addressees_seq", "addressees", ["seq"])
    op.create_index("ix_message_files_seq", "message_files", ["seq"])


def _create_people() -> None:
    op.add_column("conversations", sa.Column("last_seq", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("conversations", sa.Column("session_name", sa.String(), nullable=True))
    op.add_column("conversations", sa.Column("session_type", sa.BigInteger(), nullable=True))
    op.add_column("conversations", sa.Column("session_version", sa.BigInteger(), nullable=True))
    op.add_column("conversations", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    # last_seq changes with every message: room in the page lets it change in place
    op.execute("ALTER TABLE conversations SET (fillfactor = 70)")
    op.create_table(
        "members",
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("joined_seq", sa.BigInteger(), nullable=False),
        sa.Column("left_seq", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("conversation_id", "user_id", "joined_seq", name="pk_members"),
    )
    op.create_index("ix_members_user_id", "members", ["user_id"])
    op.create_table(
        "read_cursors",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("read_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "conversation_id", name="pk_read_cursors"),
    )


def _create_around() -> None:
    op.create_table(
        "receipts",
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=False),
        sa.Column("read_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq", "user_id", name="pk_receipts"),
    )
    op.create_table(
        "recalls",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("msg_id", sa.String(), nullable=False),
        sa.Column("msg_type", sa.String(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=False),
        sa.Column("recalled_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name="pk_recalls"),
    )
    op.create_index("ix_recalls_recalled_at", "recalls", ["recalled_at"])
    op.create_table(
        "search_documents",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("grams", sa.ARRAY(sa.Integer()), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_search_documents"),
    )
    op.create_index("ix_search_documents_grams", "search_documents", ["grams"], postgresql_using="gin")
    op.add_column("publication", sa.Column("applied_change", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("publication", sa.Column("indexed_seq", sa.BigInteger(), server_default="0", nullable=False))


def _copy() -> None:
    op.execute(f"SELECT add_message_partitions({_SPAN}, coalesce((SELECT max(seq) FROM old_messages), 0) + {_SPAN})")
    op.execute("""
        INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat, version,
                              body, msg_time, location, stored_at)
        SELECT seq, conversation_id, sender, recipient, 1, msg_id, msg_type, true, version, body, msg_time, location,
               stored_at
        FROM old_messages""")
    op.execute("INSERT INTO message_ids (msg_id, sender, seq) SELECT msg_id, sender, seq FROM old_messages")
    op.execute("SELECT setval('message_seq', coalesce(max(seq), 0) + 1, false) FROM old_messages")
    op.execute("""
        INSERT INTO members (conversation_id, user_id, joined_seq)
        SELECT DISTINCT conversation_id, split_part(conversation_id, ':', side), 0
        FROM conversations, unnest(ARRAY[2, 3]) AS side""")
    op.execute("""
        UPDATE conversations SET last_seq = newest.seq
        FROM (SELECT conversation_id, max(seq) AS seq FROM old_messages GROUP BY 1) AS newest
        WHERE newest.conversation_id = conversations.conversation_id""")


def downgrade() -> None:
    raise NotImplementedError("receipts, recalls and groups have no place in the schema before this one")

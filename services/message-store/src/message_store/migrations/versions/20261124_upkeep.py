"""Partitions that are added beside running statements, and a search index whose unsorted part stays short."""

from alembic import op

revision = "20261124_upkeep"
down_revision = "20261124_log"
branch_labels = None
depends_on = None

# Made beside the table and then attached: CREATE TABLE … PARTITION OF would wait for every reader, and everybody else
# behind it. Owned by the role that owns the tables and run with its rights: the service itself may only change rows.
_ADD_PARTITIONS = """
CREATE OR REPLACE FUNCTION add_message_partitions(span bigint, up_to bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    bound bigint;
    name text;
BEGIN
    IF span < 1 THEN
        RAISE EXCEPTION 'span must be positive';
    END IF;
    PERFORM pg_advisory_xact_lock(7240002);
    SELECT coalesce(max((regexp_match(pg_get_expr(relpartbound, oid), 'TO \\(''?(\\d+)'))[1]::bigint), 1) INTO bound
    FROM pg_class WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'messages'::regclass);
    WHILE bound <= up_to LOOP
        name := format('messages_p%s', bound);
        EXECUTE format('CREATE TABLE %I (LIKE messages INCLUDING ALL)', name);
        EXECUTE format('ALTER TABLE messages ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       name, bound, bound + span);
        bound := bound + span;
    END LOOP;
    RETURN bound;
END $$"""


def upgrade() -> None:
    op.execute(_ADD_PARTITIONS)
    # what is not sorted in yet is read through by every search: 4 MB of it, the default, cost more than the search
    op.execute("ALTER INDEX ix_search_documents_grams SET (gin_pending_list_limit = 256)")


def downgrade() -> None:
    op.execute("ALTER INDEX ix_search_documents_grams RESET (gin_pending_list_limit)")

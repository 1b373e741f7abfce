"""The migrations make exactly the tables that the models describe, and keep what is in them."""

from collections.abc import Callable

import asyncpg
import pytest
from tlim_runtime.migrations import check, upgrade

MINUTE_MS = 60_000


def test_a_migrated_database_is_what_the_models_describe(make_empty_database: Callable[[str], str]) -> None:
    url = make_empty_database("message_store")
    upgrade("message_store", url)
    check("message_store", url)


@pytest.mark.parametrize(("count", "start_seq"), [(0, 0), (10, 0), (25, 14)])
async def test_mailboxes_begin_behind_what_the_release_before_has_surely_delivered(
    make_empty_database: Callable[[str], str], count: int, start_seq: int
) -> None:
    """A message a minute: the last ten minutes may still be on their way to the XMPP server."""
    url = make_empty_database("message_store")
    upgrade("message_store", url, "20261128_untold_reads")
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(
            """INSERT INTO messages (seq, conversation_id, sender, recipient, audience, msg_id, msg_type, is_chat,
                                     version, body, msg_time, location, stored_at)
               SELECT n, 'u:a:b', 'a', 'b', 1, n, 'MTT-000', true, '', '[]', '', '', n * $2::bigint
               FROM generate_series(1, $1) AS n""",
            count, MINUTE_MS,
        )  # fmt: skip
        upgrade("message_store", url)
        row = await connection.fetchrow("SELECT start_seq, settled_seq, settled_at FROM delivery")
        assert row is not None
        assert tuple(row) == (start_seq, 0, 0)
        assert await connection.fetchval("SELECT count(*) FROM messages") == count
        assert await connection.fetchval("SELECT count(*) FROM mailboxes") == 0
    finally:
        await connection.close()
